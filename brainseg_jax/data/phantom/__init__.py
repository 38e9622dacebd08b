"""Generates phantom slices in the format of the figshare dataset."""
