"""Phantoms: phantom slices in the form of the figshare dataset."""
