"""Measures of masks and probabilities: arrays in, numbers out."""
