"""The networks: the i-RevNet, its exact arithmetic and its memory-free training, and those it is compared with."""
