"""Computes metrics of masks and probabilities from arrays."""
