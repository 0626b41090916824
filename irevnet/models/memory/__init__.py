"""Back-propagation with fewer stored activations: blocks are evaluated again, or inverted."""
