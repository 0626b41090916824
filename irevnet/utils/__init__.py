"""Files, untrusted input, processes, progress and provenance, for all other packages."""
