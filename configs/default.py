"""Every field that a run has, with its default. They stand, each with its explanation, in brainseg_jax/config.py."""

from brainseg_jax.config import get_config

__all__ = ["get_config"]
