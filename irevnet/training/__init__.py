"""Training: settings, steps, and run folders."""
