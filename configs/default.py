"""Every field that a run has, with its default: brainseg_jax/config.py, where each is explained."""

from brainseg_jax.config import get_config

__all__ = ["get_config"]
