"""Draws figures from arrays and writes them as PNG files."""
