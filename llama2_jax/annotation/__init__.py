"""Annotators: functions that compare two answers."""
