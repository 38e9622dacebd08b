"""Slices of a user's own, as image and mask files and a table, as a TFDS dataset."""
