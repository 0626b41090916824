"""One module a study: its chart, its figure and its table."""
