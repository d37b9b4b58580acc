"""Measures of a model and of its reward models."""
