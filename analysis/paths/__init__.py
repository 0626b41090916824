"""Straight lines through feature space: where they begin and end, their directions, and the images along them."""
