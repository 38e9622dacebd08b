"""The figshare brain tumour dataset for TFDS. Importing this package registers `figshare_brain_tumor`."""

from brainseg_jax.data.figshare_brain_tumor.figshare_brain_tumor_dataset_builder import Builder

__all__ = ["Builder"]
