"""Speed of our networks beside PyTorch's, in one run on one machine: `scripts/benchmark.py`."""
