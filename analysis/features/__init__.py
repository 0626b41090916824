"""Features of layers, averaged over space: extracted in one pass, and kept on disk."""
