"""A report of an experiment: from the stages' records to report.json and a page."""
