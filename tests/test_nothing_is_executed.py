"""Nothing that is read is executed: no data, weights or checkpoints; downloads have the published digests."""

import ast
import re

import numpy as np
import pooch
import pytest

from brainseg_jax.data.figshare_brain_tumor import archives
from tests.conftest import REPOSITORY

# Modules that can run what a file says, or that fetch files without a digest.
MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "requests", "urllib"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"torch.load", "pandas.read_pickle", "pd.read_pickle", "numpy.fromregex"}
# Config files are the user's own Python, as scripts are.
ALLOWED = {("brainseg_jax/config.py", "runpy.run_path"), ("brainseg_jax/cli.py", "runpy.run_module")}


def findings(source):
    """What in a program could execute what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES | {"runpy"}:
            yield node.module
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
            if called in CALLS | ATTRIBUTES or called.startswith("runpy."):
                yield called
            if any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords):
                yield "allow_pickle"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", ["pickle"]),
        ("from yaml import load", ["yaml"]),
        ("import torch\ntorch.load('file')", ["torch.load"]),
        ("np.load('file', allow_pickle=True)", ["allow_pickle"]),
        ("x = eval('1')\nexec(x)", ["eval", "exec"]),
        ("runpy.run_path('file')", ["runpy.run_path"]),
        ("import json\nre.compile('a')\nnp.load('file', allow_pickle=False)", []),
    ],
)
def test_the_search_finds_what_it_should(source, expected):
    assert list(findings(source)) == expected


def test_only_config_files_are_executed():
    folders = [REPOSITORY / name for name in ("brainseg_jax", "scripts", "configs")]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    assert len(paths) > 100
    found = {
        (path.relative_to(REPOSITORY).as_posix(), finding) for path in paths for finding in findings(path.read_text())
    }
    assert found == ALLOWED


def test_downloads_are_encrypted_and_have_a_digest(monkeypatch, tmp_path):
    fetched = {}
    monkeypatch.setattr(pooch, "retrieve", lambda *, url, known_hash, fname, **_: fetched.update({url: known_hash}))
    archives.download(tmp_path)
    assert len(fetched) == len(archives.PUBLISHED_FILES) == 6
    for url, known_hash in fetched.items():
        assert url.startswith("https://")
        assert re.fullmatch("md5:[0-9a-f]{32}", known_hash)
    for path in sorted((REPOSITORY / "brainseg_jax").rglob("*.py")):  # names of XML's own are no downloads
        addresses = re.findall(r"http://[\w.]+", path.read_text())
        assert set(addresses) <= {"http://www.w3.org"}, path


def test_numpy_refuses_pickles_by_itself(tmp_path):
    np.save(tmp_path / "file.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "file.npy")
