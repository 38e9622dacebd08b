"""Compiles our programs for NVIDIA GPUs without one: their memory, kernels and bytes, and the least possible."""
