# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
"""# A tour of brainseg_jax.

Makes a small dataset of phantom slices, trains a small U-Net, predicts, scores and draws. No GPU, no download; under
three minutes on two CPU cores. Run it as a script, or cell by cell in an editor. What it writes is in `runs/tour/`.
"""

# %%
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from brainseg_jax import Dataset, Predictor, evaluate, load_config, train_and_evaluate
from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.metrics.overlap import count_overlap, dice
from brainseg_jax.plots.segmentations import prediction_comparison, slice_gallery
from brainseg_jax.workdir.files import read_metrics, read_splits

REPOSITORY = Path(__file__).resolve().parents[1] if "__file__" in globals() else Path.cwd()
FOLDER = REPOSITORY / "runs" / "tour"
shutil.rmtree(FOLDER, ignore_errors=True)  # a new tour each time

# %% [markdown]
# ## 1. The dataset
#
# Phantoms come in the layout of the real archives and are prepared by the same command, which downloads the real ones
# where `--phantom` is left out. Those are opened by `Dataset(..., config="figshare")`.

# %%
command = [sys.executable, str(REPOSITORY / "scripts" / "prepare_data.py"), "--phantom=20", f"--data_dir={FOLDER}/data"]
subprocess.run(command, check=True)
dataset = Dataset(str(FOLDER / "data"), config="phantom")
metadata = dataset.metadata
print(f"{metadata.slice_ids.size} slices of {len(set(metadata.families))} families")

# %%
first = list(dataset.read(metadata.slice_ids[:4]))
slice_gallery(
    [scale_image(sample.image) for sample in first],
    [sample.mask for sample in first],
    [f"slice {sample.slice_id}, {LABELS[label - 1]}" for sample, label in zip(first, metadata.labels, strict=False)],
    FOLDER / "slices.png",
)

# %% [markdown]
# ## 2. Train
#
# A config has every setting of a run; `brainseg_jax/config.py` explains each. Here: small images, a small network, no
# family in two splits. A second call with the same folder resumes the run instead of starting anew.

# %%
config = load_config(REPOSITORY / "configs" / "quickstart.py")
config.data.data_dir = str(FOLDER / "data")
config.data.image_size = 64
config.model.start_filters = 8
config.train.epochs = 12
config.optimizer.learning_rate = 4e-3
train_and_evaluate(config, FOLDER / "unet")

# %%
last = read_metrics(FOLDER / "unet", epochs=config.train.epochs)[-1]
print(f"epoch {last['epoch']}: validation loss {last['validation_loss']:.3f}, Dice {last['validation_dice']:.3f}")

# %% [markdown]
# ## 3. Predict
#
# A `Predictor` opens the best checkpoint. It takes images of any size and range, and returns masks of the same size.

# %%
predictor = Predictor.from_workdir(FOLDER / "unet")
test_ids = np.array(read_splits(FOLDER / "unet")["test"])
samples = list(dataset.read(test_ids[:: max(len(test_ids) // 4, 1)][:4]))
masks = predictor.masks([sample.image for sample in samples])

# %% [markdown]
# ## 4. Score
#
# `evaluate` scores a split, slice by slice, and gives means with 95 % intervals over families.

# %%
summary = evaluate(FOLDER / "unet", split="test", output=FOLDER / "unet", examples=0)
print(f"test Dice {summary['dice']:.3f} on {summary['slices']} slices, {summary['share_missed']:.0%} missed")

# %% [markdown]
# ## 5. Draw

# %%
truth = [sample.mask.astype(bool) for sample in samples]
scores = [float(dice(count_overlap(mask[None], true[None]))[0]) for mask, true in zip(masks, truth, strict=True)]
prediction_comparison(
    [scale_image(sample.image) for sample in samples],
    truth,
    {"U-Net": masks},
    {"U-Net": scores},
    FOLDER / "predictions.png",
    captions=[f"slice {sample.slice_id}" for sample in samples],
    title="Four test slices",
)
print(f"figures: {FOLDER / 'slices.png'}, {FOLDER / 'predictions.png'}, {FOLDER / 'unet' / 'figures'}")
