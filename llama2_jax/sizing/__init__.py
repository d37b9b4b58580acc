"""What a compiled program costs, counted before it runs."""
