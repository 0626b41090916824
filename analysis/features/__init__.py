"""Features of layers, by default averaged over space: extracted in one pass, and kept on disk."""
