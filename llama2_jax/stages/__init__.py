"""One file a chapter of the paper; each turns artifacts into artifacts."""
