"""Imports libraries that only some features need."""

import importlib
from types import ModuleType

from brainseg_jax.errors import InputError


def require(module: str, *, extra: str, reason: str) -> ModuleType:
    """Imports a library of an extra of setup.py.

    Args:
      module: what is imported.
      extra: the extra that installs it.
      reason: what needs it, the beginning of a sentence.

    Raises:
      InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.split(".")[0]
        raise InputError(
            f"{reason} needs {library}, which is not installed: run `pip install 'brainseg_jax[{extra}]'` "
            f"or, in a checkout, `pip install -e '.[{extra}]'`."
        ) from error
