"""The one error that a user can mend."""


class InputError(ValueError):
    """Bad input: one sentence that names the file, the field and the remedy.

    Scripts print it without a traceback and exit with code 1 (`brainseg_jax.cli.run`).
    """
