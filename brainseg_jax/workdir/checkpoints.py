"""Checkpoints of a run: the latest, to resume from, and the best, to keep."""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from brainseg_jax.errors import InputError, shorten
from brainseg_jax.utils.files import refusal_of_disk
from brainseg_jax.utils.sharding import make_mesh, replicated


def has_checkpoint(directory: Path) -> bool:
    """Whether a folder holds a complete checkpoint; an unfinished one does not count."""
    return directory.is_dir() and any(path.name.isdigit() for path in directory.iterdir())


def _goodness(metrics: dict[str, float]) -> float:
    # orbax keeps the greatest; a NaN would win every comparison and push the best checkpoint out.
    loss = metrics["validation_loss"]
    return -loss if math.isfinite(loss) else -math.inf


def _checksum(tree: Any) -> str:
    """Returns the SHA-256 of the values of all arrays."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints in a folder, at most one per epoch: the latest and the one with the lowest validation loss.

    Writing happens in the background and is atomic: a killed process leaves the previous checkpoint. As a context
    manager, it waits for the last write.
    """

    def __init__(self, directory: Path) -> None:
        """Opens the folder; it is made when the first checkpoint is saved.

        Raises:
          InputError: orbax's record of the checkpoints there is damaged.
        """
        best = checkpoint_managers.BestN(get_metric_fn=_goodness, n=1)
        self._directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(1), best]),
            best_fn=_goodness,
            best_mode="max",
            create=True,
            # In the background, orbax would wait five minutes for a folder that cannot be made.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        with self._named():
            self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> Self:  # noqa: D105
        return self

    def __exit__(  # noqa: D105
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._manager.close()
        except Exception as problem:
            if error is None:  # otherwise the training ends for another reason, which is reported
                raise self._unwritten(problem) from problem

    def latest_epoch(self) -> int | None:
        """Returns the epoch of the latest checkpoint, None where there is none."""
        with self._named():
            return self._manager.latest_step()

    def best_epoch(self) -> int | None:
        """Returns the epoch of the lowest validation loss, None where there is no checkpoint."""
        with self._named():
            return self._manager.best_step()

    def save(self, epoch: int, tree: Mapping[str, Any], *, validation_loss: float) -> None:
        """Saves the state of a training after an epoch.

        Args:
          epoch: 1 for the first.
          tree: a pytree of arrays.
          validation_loss: of that epoch; the lowest is the best.

        Raises:
          InputError: this checkpoint or the one before could not be written, for instance because the disk is full.
          RuntimeError: there is a checkpoint of that epoch (orbax itself would skip it without a message).
        """
        args, metrics = ocp.args.PyTreeSave(dict(tree)), {"validation_loss": float(validation_loss)}
        checksums = {name: _checksum(part) for name, part in tree.items()}
        try:
            saved = self._manager.save(epoch, args=args, metrics=metrics, custom_metadata={"sha256": checksums})
        except Exception as error:
            raise self._unwritten(error) from error
        if not saved:
            raise RuntimeError(f"{self._directory} already holds a checkpoint of epoch {epoch}.")

    def restore(
        self, epoch: int | None, target: Mapping[str, Any], sharding: jax.sharding.Sharding | None = None
    ) -> dict[str, Any]:
        """Restores a checkpoint or a part of it: reads only the arrays in `target`.

        Args:
          epoch: of the checkpoint.
          target: a pytree of arrays or of their shapes (`jax.eval_shape`).
          sharding: where the arrays shall be, whatever devices the checkpoint was written from; None for every device
            of every process, all of which must then restore.

        Returns:
          A pytree like `target`.

        Raises:
          InputError: there is no such checkpoint, or it does not hold what `target` asks for.
        """
        if epoch is None:
            raise InputError(f"{self._directory} holds no checkpoint: train first, or name another --workdir.")
        sharding = sharding or replicated(make_mesh(batch_size=jax.device_count()))
        shapes: Any = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), dict(target)
        )
        args = ocp.args.PyTreeRestore(
            item=shapes, restore_args=ocp.checkpoint_utils.construct_restore_args(shapes), partial_restore=True
        )
        try:
            restored: dict[str, Any] = self._manager.restore(epoch, args=args)
            # Tensorstore returns wrong values where a bit has changed. Checkpoints of older versions have no checksums.
            checksums = (self._manager.metadata(epoch).custom_metadata or {}).get("sha256", {})
            if changed := [
                name for name, part in restored.items() if checksums.get(name, "") not in ("", _checksum(part))
            ]:
                raise ValueError(f"the checksum of {changed[0]} differs")
        except Exception as error:  # orbax and tensorstore have errors of many classes for files that are damaged
            others = sorted({*self._manager.all_steps()} - {epoch})
            remedy = "name the workdir of a run of this network"
            if others:
                remedy += f", or remove the folder {epoch} there to use the checkpoint of epoch {others[-1]}"
            raise InputError(
                f"The checkpoint of epoch {epoch} in {self._directory} is damaged or does not fit config.json ("
                f"{shorten(error)}): {remedy}."
            ) from error
        return restored

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Raises that the folder is damaged where orbax cannot list its checkpoints."""
        try:
            yield
        except Exception as error:  # of many classes
            raise InputError(
                f"The checkpoints in {self._directory} are damaged ({type(error).__name__}: "
                f"{shorten(error)}): remove the damaged one, or name another --workdir."
            ) from error

    def _unwritten(self, error: Exception) -> InputError:
        """Says why a checkpoint could not be written."""
        reason = refusal_of_disk(error) or shorten(error)
        return InputError(
            f"A checkpoint in {self._directory} could not be written ({reason}): make room or rights there; those that "
            "are complete are kept, and the same command goes on from there."
        )
