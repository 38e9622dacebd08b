"""The one error that a user can mend, and how it quotes errors of libraries and what stands in files."""


class InputError(ValueError):
    """Bad input: one sentence that names the file, the field and the remedy.

    Scripts print it without a traceback and exit with code 1 (`brainseg_jax.cli.run`).
    """


def shorten(quoted: Exception | str, *, characters: int = 200) -> str:
    """Returns the beginning of a text in one line: damaged files may hold long values, which libraries repeat."""
    return " ".join(str(quoted).split())[:characters]
