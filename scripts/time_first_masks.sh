#!/usr/bin/env bash
# Times the way from nothing but Python to masks of DICOM files: a fresh clone, a fresh .venv, pydicom's own MR files.
# usage: time_first_masks.sh OUTPUT.json
set -euo pipefail
output=$(realpath -m "${1:?name a JSON file for the result}")
repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export PIP_NO_CACHE_DIR=1 # as on a machine that never installed anything
begin=$SECONDS
git clone --quiet "$repository" "$place/clone"
source "$place/clone/scripts/setup_environment.sh" formats # goes into the clone
set_up=$((SECONDS - begin))
slices=$(.venv/bin/python -c 'from pydicom.data import get_testdata_file as find; print(find("MR_small.dcm"))')
mkdir "$place/slices"
cp "${slices%/*}"/MR_small*.dcm "$place/slices"
begin=$SECONDS
.venv/bin/python scripts/predict.py --input="$place/slices" --output="$place/masks"
predict=$((SECONDS - begin))
.venv/bin/python - "$output" $set_up $predict "$(ls "$place/slices" | wc -l)" <<'PYTHON'
import sys
from pathlib import Path

import jax

from brainseg_jax.utils.files import write_json
from brainseg_jax.utils.provenance import describe_environment

path, set_up, predict, files = Path(sys.argv[1]), *map(int, sys.argv[2:])
timing = {"seconds": set_up + predict, "set_up_seconds": set_up, "predict_seconds": predict, "dicom_files": files}
path.parent.mkdir(parents=True, exist_ok=True)
write_json(path, timing | describe_environment(devices=jax.local_device_count()) | {"command": "scripts/time_first_masks.sh"})
print(f"{set_up} s for the set-up, {predict} s for {files} files; written to {path}")
PYTHON
