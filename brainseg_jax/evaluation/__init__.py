"""Scores of trained networks: slice by slice, their summary, comparison and charts."""
