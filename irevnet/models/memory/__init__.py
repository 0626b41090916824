"""Back-propagation with fewer stored activations, by evaluating blocks again or inverting them."""
