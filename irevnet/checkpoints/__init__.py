"""Checkpoint files: those of this toolkit, of the authors' release, and of other libraries."""
