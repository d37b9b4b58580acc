"""Checkpoints of others, in and out: Meta's and Hugging Face's files, read and written a tensor at a time."""
