"""All fields of a run with their defaults; brainseg_jax/config.py explains each field."""

from brainseg_jax.config import get_config

__all__ = ["get_config"]
