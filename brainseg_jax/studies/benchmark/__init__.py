"""Compares the speed of our networks with PyTorch's in one run on one machine: `scripts/benchmark.py`."""
