"""Reproduces all results within a time limit, by the commands that a user would give."""
