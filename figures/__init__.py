"""Pictures of saved results, one module a study; nothing is computed here, and no torch is imported."""
