"""Training: its settings, the steps, and the folders that runs leave behind."""
