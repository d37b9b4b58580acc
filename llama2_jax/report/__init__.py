"""From stages' records to a page."""
