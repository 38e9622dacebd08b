"""Brain tumour segmentation in MRI slices with JAX and Flax."""
