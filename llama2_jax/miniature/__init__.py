"""The small world of the tiny scale: its text, requests, and an annotator who knows its truth."""
