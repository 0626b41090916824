"""The representation studies of the i-RevNet paper, one a module: pure functions in, a dataclass of arrays out."""
