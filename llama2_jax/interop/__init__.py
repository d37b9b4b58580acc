"""Meta's and Hugging Face's checkpoints, read and written a tensor at a time."""
