"""Checkpoints of a run: the latest, to go on from, and the best, to keep."""

import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from brainseg_jax.errors import InputError
from brainseg_jax.training.state import TrainState
from brainseg_jax.utils.sharding import make_mesh, replicated


def _goodness(metrics: dict[str, float]) -> float:
    # orbax keeps the greatest; a NaN would win every comparison and push the best one out.
    loss = metrics["validation_loss"]
    return -loss if math.isfinite(loss) else -math.inf


def _tree(state: TrainState) -> dict[str, Any]:
    # Without an average where there is none, as runs were saved before there were averages.
    return {name: value for name, value in state._asdict().items() if name != "average" or value}


class Checkpoints:
    """The checkpoints in a folder, one an epoch at most: the latest and the one of the lowest validation loss.

    Writing happens in the background and is atomic: a killed process leaves the one before. Use as a context manager,
    which waits for the last write.
    """

    def __init__(self, directory: Path) -> None:
        """Opens the folder; it is made when the first checkpoint is saved."""
        best = checkpoint_managers.BestN(get_metric_fn=_goodness, n=1)
        self._directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(1), best]),
                best_fn=_goodness,
                best_mode="max",
                create=True,
            ),
        )

    def __enter__(self) -> Self:  # noqa: D105
        return self

    def __exit__(  # noqa: D105
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._manager.close()

    def latest_epoch(self) -> int | None:
        """The epoch of the latest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def best_epoch(self) -> int | None:
        """The epoch of the lowest validation loss, None where there is no checkpoint."""
        return self._manager.best_step()

    def save(self, epoch: int, state: TrainState, *, validation_loss: float) -> None:
        """Saves the state after an epoch.

        Raises:
          RuntimeError: there is a checkpoint of that epoch (orbax itself would skip it in silence).
        """
        saved = self._manager.save(
            epoch,
            args=ocp.args.StandardSave(_tree(state)),
            metrics={"validation_loss": float(validation_loss)},
        )
        if not saved:
            raise RuntimeError(f"{self._directory} already holds a checkpoint of epoch {epoch}.")

    def restore(
        self, epoch: int | None, target: TrainState, sharding: jax.sharding.Sharding | None = None
    ) -> TrainState:
        """Restores a state.

        Args:
          epoch: which.
          target: a state, or its shapes (`jax.eval_shape`), of the same network and optimizer.
          sharding: where the arrays shall be, whatever devices the checkpoint was written from; None for every device
            of every process, all of which must then restore.

        Returns:
          The state.

        Raises:
          InputError: there is no such checkpoint, or it is of another network.
        """
        if epoch is None:
            raise InputError(f"{self._directory} holds no checkpoint: train first, or name another --workdir.")
        sharding = sharding or replicated(make_mesh(batch_size=jax.device_count()))
        shapes: Any = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), _tree(target)
        )
        try:
            restored = self._manager.restore(epoch, args=ocp.args.StandardRestore(shapes))
            return TrainState(**{"average": {}} | restored)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"The checkpoint of epoch {epoch} in {self._directory} does not fit config.json ("
                f"{' '.join(str(error).split())[:200]}): name the workdir of a run of this network."
            ) from error
