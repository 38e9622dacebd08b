"""Segments brain tumours in MRI slices with U-Net and LinkNet in JAX and Flax.

The names below are the public API. Each is imported when it is first used (PEP 562), so that `import brainseg_jax`
takes no time and does not start JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainseg_jax.config import get_config, load_config
    from brainseg_jax.data.dataset import Dataset
    from brainseg_jax.errors import InputError
    from brainseg_jax.evaluation.evaluate import evaluate
    from brainseg_jax.inference.ensemble import Ensemble
    from brainseg_jax.inference.predictor import Predictor
    from brainseg_jax.models import MODELS, create_model
    from brainseg_jax.training.loop import train_and_evaluate

__version__ = "0.1.0"
__all__ = [
    "MODELS",
    "Dataset",
    "Ensemble",
    "InputError",
    "Predictor",
    "create_model",
    "evaluate",
    "get_config",
    "load_config",
    "train_and_evaluate",
]

_MODULES = {
    "MODELS": "models",
    "Dataset": "data.dataset",
    "Ensemble": "inference.ensemble",
    "InputError": "errors",
    "Predictor": "inference.predictor",
    "create_model": "models",
    "evaluate": "evaluation.evaluate",
    "get_config": "config",
    "load_config": "config",
    "train_and_evaluate": "training.loop",
}


def __getattr__(name: str) -> Any:
    """Imports a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names."""
    return [*__all__, "__version__"]
