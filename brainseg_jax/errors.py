"""Defines the error that a user can correct, and shortens what it quotes from libraries and files."""


class InputError(ValueError):
    """Bad input: one sentence that names the file, the field and the remedy.

    Scripts print it without a traceback and exit with code 1 (`brainseg_jax.cli.run`).
    """


def shorten(quoted: Exception | str, *, characters: int = 200) -> str:
    """Returns the beginning of a text on one line: libraries quote the values in damaged files, which may be long."""
    return " ".join(str(quoted).split())[:characters]
