"""The charts of each section of the page, as SVG; a chart without data is None."""
