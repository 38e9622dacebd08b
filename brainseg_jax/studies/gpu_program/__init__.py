"""Compiles our programs for NVIDIA GPUs without one: their memory, kernels and bytes, beside the least possible."""
