"""The one error that a user can mend, and how it quotes those of libraries."""


class InputError(ValueError):
    """Bad input: one sentence that names the file, the field and the remedy.

    Scripts print it without a traceback and exit with code 1 (`brainseg_jax.cli.run`).
    """


def shorten(error: Exception, *, characters: int = 200) -> str:
    """Returns the beginning of an error's text in one line: libraries may quote what is damaged at length."""
    return " ".join(str(error).split())[:characters]
