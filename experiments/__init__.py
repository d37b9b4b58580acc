"""Experiments: each file says what it adds to the one before it."""
