"""What a user writes: config files, flags that begin with --config, and the table of own slices."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags
from numpy.random import Generator
from PIL import Image

from brainseg_jax import cli
from brainseg_jax.config import flatten, get_config
from brainseg_jax.data.dataset import Dataset
from brainseg_jax.data.own_slices.table import read_source
from brainseg_jax.data.splits import make_splits
from brainseg_jax.errors import InputError
from brainseg_jax.training.preflight import check_config
from brainseg_jax.training.setup import setup_training
from brainseg_jax.workdir.files import describe_run
from brainseg_jax.workdir.weights import find_weights
from tests.nightly.fuzzing.kind import Kind
from tests.nightly.fuzzing.mutations import strange_value
from tests.nightly.fuzzing.phantoms import metadata, phantoms
from tests.nightly.fuzzing.runs import change_cells

DEFAULTS = f"{os.path.dirname(cli.__file__)}/config.py"
# Texts that a flag may have.
TEXTS = (
    *(
        "",
        "0",
        "1",
        "-1",
        "0.5",
        "1e309",
        "nan",
        "inf",
        "-inf",
        "True",
        "None",
        "1e3",
        "0x10",
        "1_0",
        "٣",
        "９",
        "a",
        "[1]",
    ),
    *("{}", "(1,2)", "9" * 100, str(2**31), str(2**63), "x" * 100, "~/x", "a,b", "linknet", "unet", "cosine", "dice"),
    *("bfloat16", "family", "official", "phantom", "figshare", "device", "16", "64", "0.99", "1e-320"),
)


def _no_seeds(_: Path) -> None:
    return None


def _field(rng: Generator) -> str:
    names = [*flatten(get_config().to_dict()), "model", "train", "data.imagesize", "model.filters", "x", "model.name.x"]
    return names[int(rng.integers(len(names)))]


CONFIG = """import ml_collections
from brainseg_jax import config as defaults


def get_config():
    config = defaults.get_config()
    config.data.dataset = "phantom"
{lines}
    return config
"""


def _write_config(rng: Generator, _: None, folder: Path) -> Path:
    text = CONFIG.format(lines="\n".join(f"    {_line(rng)}" for _number in range(rng.integers(1, 4))))
    if rng.random() < 0.03:
        text = text[: int(rng.integers(len(text)))]
    path = folder / "config.py"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


def _line(rng: Generator) -> str:
    """Returns a line of a config file: mostly a field that is set, else a mistake of another kind."""
    name = _field(rng)
    value = _literal(rng, name)
    mistakes = (
        f"config.model = ml_collections.ConfigDict({{'name': 'unet', {name.split('.')[-1]!r}: {value}}})",
        f"config.update_from_flattened_dict({{{name!r}: {value}}})",
        f"with config.unlocked(): config.{name} = {value}",
        f"with config.unlocked(): del config.{name}",
        f"config = {value}",
        "config = config.to_dict()",
        f"raise ValueError({value})",
        "import nothing_of_this_name",
        f"config.{name} =",
        f"config.train.epochs = config.get_ref({name!r})",
    )
    return f"config.{name} = {value}" if rng.random() < 0.6 else mistakes[int(rng.integers(len(mistakes)))]


def _literal(rng: Generator, name: str) -> str:
    """Returns a value as Python writes it: often one that such a field may have."""
    choice = rng.random()
    if choice < 0.8:
        text = _plausible(rng, name) if choice < 0.6 else TEXTS[int(rng.integers(len(TEXTS)))]
        text = text.title() if text in ("true", "false") else text
        return (
            text
            if text in ("True", "False") or (text.replace(".", "").isdecimal() and text.isascii() and len(text) < 20)
            else repr(text)
        )
    value = strange_value(rng)
    value = value[:300] if isinstance(value, str) else value
    return f"float('{value}')" if isinstance(value, float) else "10**400" if value == 10**400 else repr(value)


def _plausible(rng: Generator, name: str) -> str:
    """Returns a text that has the type of a field, mostly in its range."""
    default = flatten(get_config().to_dict()).get(name, "")
    if isinstance(default, str):
        return TEXTS[-int(rng.integers(1, 16))]
    if isinstance(default, bool):
        return str(rng.choice(["true", "false"]))
    numbers = (
        ["1", "16", "64", "2", "8", str(2**31 - 16)]
        if isinstance(default, int)
        else ["0.5", "0.01", "1e-30", "1", "0.9"]
    )
    return str(rng.choice(numbers))


def _write_flags(rng: Generator, _: None, folder: Path) -> Path:
    words = [f"--config={DEFAULTS}", "--config.data.dataset=phantom"]
    for _number in range(rng.integers(1, 4)):
        name = _field(rng)
        value = _plausible(rng, name) if rng.random() < 0.7 else TEXTS[int(rng.integers(len(TEXTS)))]
        words.append(
            str(
                rng.choice(
                    [
                        *[f"--config.{name}={value}"] * 9,
                        f"--config.{name}",
                        f"--noconfig.{name}",
                        f"--config..{name}={value}",
                    ]
                )
            )
        )
    path = folder / "flags.json"
    path.write_text(json.dumps(words))
    return path


def _read_config(path: Path) -> None:
    _start([f"--config={path}"])


def _read_flags(path: Path) -> None:
    _start(json.loads(path.read_text()))


def _start(words: list[str]) -> None:
    """Does what train.py does with its command line, up to the first step; raises what it would print."""
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", None, flag_values=values)
    before = sys.argv, flags.FLAGS
    sys.argv, flags.FLAGS = ["train.py", *words], values
    try:
        with mock.patch.object(cli, "_end", _leave):  # which would end the fuzzer
            rest = cli._parse(sys.argv)
        if len(rest) > 1:
            raise InputError(f"config: {rest[1]} is not a flag")
        _check(holder.value)
    except SystemExit as end:
        raise InputError(_sentence(str(end).removeprefix("error: "))) from None
    except InputError:
        raise
    except Exception as error:
        sentence = cli._explain(error)  # raises an error that a user cannot mend again
        raise InputError(_sentence(sentence)) from error
    finally:
        sys.argv, flags.FLAGS = before


def _leave(message: str, code: int) -> None:
    raise SystemExit(message)


def _sentence(text: str) -> str:
    assert text, "train.py ends without a word"
    return text


def _check(config: ml_collections.ConfigDict) -> None:
    check_config(config)
    try:
        Dataset.from_config(config.data)
    except InputError as error:
        if "holds no" not in str(error):  # no dataset was prepared for the fuzzer
            raise
    make_splits(metadata(), **config.split)
    if config.train.init_from:
        find_weights(config.train.init_from)
    state = jax.eval_shape(lambda: setup_training(config, steps_per_epoch=3).state)
    assert all(0 not in leaf.shape for leaf in jax.tree.leaves(state.params))
    describe_run(config)
    json.loads(config.to_json(), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Any:
    raise AssertionError(f"a setting is {name}")


def _table(folder: Path) -> Path:
    rows = ["image,mask,patient,class,fold,spacing,note"]
    (folder / "images").mkdir()
    for number, slice_ in enumerate(phantoms()[0][:6]):
        Image.fromarray(slice_.image.astype(np.uint16)).save(folder / "images" / f"{number}.png")
        Image.fromarray(255 * slice_.mask).save(folder / "images" / f"{number}_mask.png")
        rows.append(f"{number}.png,{number}_mask.png,p{number},{'ab'[number % 2]},{1 + number % 5},0.5,x")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


def _damage_table(rng: Generator, seed: Path, folder: Path) -> Path:
    shutil.copytree(seed, folder, dirs_exist_ok=True)
    (folder / "table.csv").write_bytes(change_cells(rng, (seed / "table.csv").read_bytes()))
    return folder


def _read_table(folder: Path) -> None:
    source = read_source(folder / "table.csv", images=folder / "images", masks=folder / "images", seed=0)
    for one in source.slices:
        image, mask = one.read()
        assert image.shape == mask.shape
        assert np.isfinite(image).all()
        assert one.fold in (1, 2, 3, 4, 5)
        assert one.patient_id
        assert one.label
        assert np.isnan(one.spacing_mm) or 0 < one.spacing_mm < np.inf


# What a sentence about a setting says in place of the file.
NAMED = ("config", "Protocol", "no name of weights", "name another place")
KINDS = {
    "table.csv": Kind(_table, _damage_table, _read_table),
    "config.py": Kind(_no_seeds, _write_config, _read_config, NAMED),
    "flags": Kind(_no_seeds, _write_flags, _read_flags, NAMED),
}
