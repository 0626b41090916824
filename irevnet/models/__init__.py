"""The networks: the i-RevNet, its exact arithmetic and memory-saving back-propagation, and the baselines."""
