"""The programs: each file is a script, and installed as brainseg_jax.scripts."""
