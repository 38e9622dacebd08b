"""Figures: arrays in, PNG files out."""
