"""Prepares the dataset: `python scripts/prepare_data.py [--manual_dir=DIR]`, or `--phantom=40` for phantom slices."""

import tempfile
from pathlib import Path

from absl import flags

from brainseg_jax import cli

DATA_DIR = flags.DEFINE_string("data_dir", None, "The TFDS root to write to; TFDS's own default if not given.")
MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", None, "Folder with the dataset's zips or .mat files; downloaded from figshare if not given."
)
PHANTOM = flags.DEFINE_integer("phantom", None, "Make phantom slices of this many patients; reads no real slices.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the phantom slices.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a build that was made from another source.")


def main() -> None:
    """Builds the dataset and prints its contents."""
    import tensorflow_datasets as tfds

    from brainseg_jax.data.dataset import Dataset
    from brainseg_jax.data.figshare_brain_tumor import archives, prepare
    from brainseg_jax.data.metadata import compare_with_published, describe_metadata
    from brainseg_jax.data.phantom import generate
    from brainseg_jax.errors import InputError

    data_dir = Path(DATA_DIR.value or tfds.core.constants.DATA_DIR).expanduser()
    patients = PHANTOM.value
    config = "figshare" if patients is None else "phantom"
    if patients is not None and MANUAL_DIR.value:
        raise InputError("--manual_dir and --phantom exclude each other: name one of them.")
    with tempfile.TemporaryDirectory() as temporary:
        if patients is not None:
            manual_dir = Path(temporary)
            generate.write_archives(manual_dir, patients=patients, seed=SEED.value)
        elif MANUAL_DIR.value:
            manual_dir = Path(MANUAL_DIR.value).expanduser()
        else:
            manual_dir = data_dir / "downloads" / "figshare_1512427"
            archives.download(manual_dir)
        source = archives.find_source(manual_dir)
        if source.changed_files and config == "figshare":
            changed = ", ".join(source.changed_files)
            print(
                f"warning: {changed} of {manual_dir} differ from the published files (MD5); they are used as they are"
            )
        folder = prepare.build_dataset(
            source, manual_dir=manual_dir, data_dir=data_dir, config=config, overwrite=OVERWRITE.value
        )
    metadata = Dataset(str(data_dir), config=config).metadata
    print(f"The dataset is in {folder}.\n{describe_metadata(metadata)}")
    if config == "figshare":
        print(compare_with_published(metadata))


if __name__ == "__main__":
    cli.run(main)
