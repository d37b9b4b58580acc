"""Text before it is a source: what is left out of it, and what is too much like what is there."""
