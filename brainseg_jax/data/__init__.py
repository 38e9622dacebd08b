"""Reads, splits, packs, augments and batches the slices."""
