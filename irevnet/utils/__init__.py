"""What networks, data and training share: files, untrusted input, several processes, provenance."""
