"""Prepares the dataset: `python scripts/prepare_data.py [--manual_dir=DIR]`, `--phantom=40`, or your own slices."""

import shutil
from pathlib import Path

from absl import flags

from brainseg_jax import cli

DATA_DIR = flags.DEFINE_string("data_dir", None, "The TFDS root to write to; TFDS's own default if not given.")
MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", None, "Folder with the dataset's zips or .mat files; downloaded from figshare if not given."
)
PHANTOM = flags.DEFINE_integer("phantom", None, "Make phantom slices of this many patients; reads no real slices.")
IMAGES = flags.DEFINE_string("images", None, "Your own slices: the folder of the images.")
MASKS = flags.DEFINE_string("masks", None, "Your own slices: the folder of the masks.")
TABLE = flags.DEFINE_string(
    "table",
    None,
    "Your own slices: a CSV file with the columns image, mask, patient and, if wanted, class, fold, spacing.",
)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the phantom slices, or of the folds of your own.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a build that was made from another source.")


def main() -> None:
    """Builds the dataset and prints its contents."""
    import tensorflow_datasets as tfds

    from brainseg_jax.data.dataset import Dataset
    from brainseg_jax.data.metadata import compare_with_published, describe_metadata
    from brainseg_jax.errors import InputError

    data_dir = Path(DATA_DIR.value or tfds.core.constants.DATA_DIR).expanduser()
    own = [flag.name for flag in (IMAGES, MASKS, TABLE) if flag.value]
    if 0 < len(own) < 3:
        raise InputError(f"--{own[0]} is for your own slices: give --images, --masks and --table together.")
    chosen = [*own[:1], *(flag.name for flag in (MANUAL_DIR, PHANTOM) if flag.value is not None)]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(f'--{name}' for name in chosen)} exclude each other: name one of them.")
    config = "folder" if own else "figshare" if PHANTOM.value is None else "phantom"
    try:
        folder = prepare_own_slices(data_dir) if own else prepare_archives(data_dir, config)
    except OSError as error:
        error.filename = error.filename or str(data_dir)  # a full disk names no file
        raise
    metadata = Dataset(str(data_dir), config=config).metadata
    print(f"The dataset is in {folder}.\n{describe_metadata(metadata)}")
    if config == "figshare":
        print(compare_with_published(metadata))


def prepare_own_slices(data_dir: Path) -> Path:
    """Builds the dataset of the table and returns its folder."""
    from brainseg_jax.data.own_slices.builder import build_dataset
    from brainseg_jax.data.own_slices.table import read_source

    table, images, masks = (Path(str(flag.value)).expanduser() for flag in (TABLE, IMAGES, MASKS))
    source = read_source(table, images=images, masks=masks, seed=SEED.value)
    print(f"{table} has {len(source.slices)} slices, {sum(one.mask is None for one in source.slices)} without a mask.")
    return build_dataset(source, data_dir=data_dir, table=table, overwrite=OVERWRITE.value)


def prepare_archives(data_dir: Path, config: str) -> Path:
    """Builds the dataset of the figshare files, or of phantoms in their form, and returns its folder."""
    from brainseg_jax.data.figshare_brain_tumor import archives, prepare
    from brainseg_jax.data.phantom import generate

    phantoms = data_dir / "unfinished_phantom_archives"  # a killed process leaves them, and the next one removes them
    shutil.rmtree(phantoms, ignore_errors=True)
    try:
        if PHANTOM.value is not None:
            manual_dir = phantoms
            generate.write_archives(manual_dir, patients=PHANTOM.value, seed=SEED.value)
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
        return prepare.build_dataset(
            source, manual_dir=manual_dir, data_dir=data_dir, config=config, overwrite=OVERWRITE.value
        )
    finally:
        shutil.rmtree(phantoms, ignore_errors=True)


if __name__ == "__main__":
    cli.run(main)
