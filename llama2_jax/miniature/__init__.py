"""The small world of the tiny scale: its text, requests, and an annotator that knows its truth."""
