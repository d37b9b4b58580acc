"""Who compares two answers."""
