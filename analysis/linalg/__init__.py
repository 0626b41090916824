"""Singular values of linear operators that are known by their products with vectors."""
