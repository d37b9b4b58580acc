"""Experiments: each page is one to run and says what it adds to the one before it; parts/ is what they are made of."""
