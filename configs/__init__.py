"""Configurations of runs: default.py has every field, the others are differences from it."""
