"""Images that a network cannot tell apart by its logits, or by its averaged features, in closed form."""
