"""Tests of brainseg_jax/inference/export/."""
