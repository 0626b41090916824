"""What lies on the disk: runs with their saved results, and the commands that made them."""
