"""Straight lines through feature space: their endpoints, their directions, and the images along them."""
