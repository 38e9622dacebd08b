"""Builds the TFDS dataset without TensorFlow."""

import concurrent.futures
import multiprocessing
import os
import signal
from pathlib import Path

from brainseg_jax.data import tfds_build
from brainseg_jax.data.figshare_brain_tumor import archives
from brainseg_jax.data.figshare_brain_tumor.figshare_brain_tumor_dataset_builder import Builder
from brainseg_jax.utils import xla_setup

MAX_READERS = 4  # more would wait for the one process that writes


def build_dataset(source: archives.Source, *, manual_dir: Path, data_dir: Path, config: str, overwrite: bool) -> Path:
    """Builds the dataset in the array_record format, or keeps an existing build from the same source.

    Spawned processes read the slices, so the calling program needs an `if __name__ == "__main__":` guard.

    Args:
      source: the slices in `manual_dir`.
      manual_dir: the folder of the dataset's files.
      data_dir: the TFDS root.
      config: the builder config, "figshare" or "phantom".
      overwrite: whether a build from another source is replaced.

    Returns:
      The folder of the build.

    Raises:
      InputError: a slice is invalid, or a build from another source exists and `overwrite` is False.
    """
    facts = {"fingerprint": source.fingerprint, "slices": len(source.slices), "from": str(manual_dir)}
    # Spawned, not forked: JAX has threads.
    count, spawn = min(xla_setup.available_cores(), MAX_READERS), multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        count, spawn, initializer=xla_setup.end_with, initargs=(os.getpid(),)
    ) as readers:
        # A terminal interrupts all processes at once. Only this one shall report it: the readers inherit the block.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for _ in range(count):  # each task starts a process
            readers.submit(os.getpid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

        def create(root: Path) -> Builder:
            builder = Builder(config=config, data_dir=root)
            builder.readers = readers
            return builder

        return tfds_build.build(create, data_dir=data_dir, facts=facts, overwrite=overwrite, manual_dir=manual_dir)
