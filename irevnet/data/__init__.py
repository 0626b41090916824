"""Data sets and folders of images, as inputs of a network."""
