"""Phantoms: drawn slices in the form of the figshare dataset."""
