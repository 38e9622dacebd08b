#!/usr/bin/env bash
# The whole job on phantom slices: sets up, builds the dataset, trains, evaluates and draws. No GPU, no download of data.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh" formats

run=runs/quickstart
.venv/bin/python scripts/prepare_data.py --phantom=60 --data_dir=runs/phantom_data
.venv/bin/python scripts/train.py --config=configs/quickstart.py --workdir="$run"
.venv/bin/python scripts/evaluate.py --workdir="$run" --split=test --report
echo
echo "Done. Open $run/report.html in a browser: scores, learning curves and every slice. Figures: $run/figures/."
echo "Masks of your own slices, with weights that were trained on real ones:"
echo "  .venv/bin/python scripts/predict.py --input=FOLDER --output=masks --report"
