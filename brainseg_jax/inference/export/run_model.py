"""Makes masks of slices with the network beside this file: `python run_model.py slice.png other_slice.npy`.

Each mask lies beside its slice, as `slice_mask.png` (0 and 255) or `other_slice_mask.npy` (bool). Beside it this file
needs config.json and model.onnx or model.stablehlo; of packages NumPy, ONNX Runtime (or JAX, for model.stablehlo) and,
for PNG and JPEG, Pillow. From Python: `import run_model; run_model.masks([image])`.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
MODELS = ("model.onnx", "model.stablehlo")


def masks(images: Sequence[np.ndarray], *, model: Path | None = None) -> list[np.ndarray]:
    """Returns for each image the mask of the tumour, (H, W) bool; see `probabilities`."""
    settings = _settings(_find(model))["evaluation"]
    above = [of_image > settings["threshold"] for of_image in probabilities(images, model=model)]
    return [_without_small(mask, settings["min_component_fraction"] * mask.size) for mask in above]


def probabilities(images: Sequence[np.ndarray], *, model: Path | None = None) -> list[np.ndarray]:
    """Returns for each image the probability that a pixel is tumour, (H, W) float32 in [0, 1].

    Args:
      images: each (H, W) of any size, real dtype and range, upright.
      model: model.onnx or model.stablehlo, with config.json beside it; by default the first that is beside this file.
    """
    model = _find(model)
    network, settings = _load(model), _settings(model)["data"]
    results = []
    for image in images:
        side, size = max(image.shape), settings["image_size"]
        top, left = ((side - length) // 2 for length in image.shape)
        place = np.s_[top : top + image.shape[0], left : left + image.shape[1]]
        square = np.zeros((side, side), np.float32)
        square[place] = _scale(image, settings["intensity_percentile"])
        output = network(_resize(square, size)[None, :, :, None])
        results.append(_resize(np.asarray(output)[0, :, :, 0], side)[place])
    return results


def _find(model: Path | None) -> Path:
    there = [HERE / name for name in MODELS if (HERE / name).exists()]
    if model is None and not there:
        raise SystemExit(f"error: {HERE} has neither {' nor '.join(MODELS)}: copy one of them there.")
    return Path(model) if model else there[0]


@functools.cache
def _settings(model: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(model.with_name("config.json").read_text())
    return settings


@functools.cache
def _load(model: Path) -> Callable[[np.ndarray], Any]:
    """Returns the network: images (B, S, S, 1) float32 in [0, 1] to probabilities (B, S, S, 1)."""
    if model.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(model, providers=onnxruntime.get_available_providers())
        return lambda images: session.run(None, {"images": images})[0]
    import jax
    from jax import export

    return jax.jit(export.deserialize(bytearray(model.read_bytes())).call)


def _scale(image: np.ndarray, percentile: float) -> np.ndarray:
    """Scales grey levels to [0, 1]: from one percentile to another, or from the least to the greatest."""
    image = image.astype(np.float32)
    low, high = np.percentile(image, (percentile, 100 - percentile)) if percentile else (image.min(), image.max())
    if not high > low:  # nearly all pixels are equal
        low, high = image.min(), image.max()
    return ((image - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(image)


def _resize(square: np.ndarray, size: int) -> np.ndarray:
    """Resizes (S, S) to (size, size), bilinear and antialiased: the numbers of Pillow's `resize`."""
    ratio = len(square) / size
    centres = (np.arange(size)[:, None] + 0.5) * ratio
    distances = np.abs(np.arange(len(square)) + 0.5 - centres) / max(ratio, 1.0)
    weights = (1 - distances).clip(0)
    weights /= weights.sum(axis=1, keepdims=True)
    across = (square @ weights.T).astype(np.float32)
    return (weights @ across).astype(np.float32)


def _without_small(mask: np.ndarray, least: float) -> np.ndarray:
    """Removes components (of 8 neighbours) of fewer than `least` pixels."""
    if not least:
        return mask
    padded = np.pad(mask, 1)
    width = padded.shape[1]
    steps = [row * width + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
    left, kept = set(np.flatnonzero(padded).tolist()), np.zeros(padded.size, bool)
    while left:
        component = [left.pop()]
        for pixel in component:  # it grows while it is read
            near = left.intersection(pixel + step for step in steps)
            left -= near
            component += near
        kept[component] = len(component) >= least
    return kept.reshape(padded.shape)[1:-1, 1:-1]


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode not in ("I", "F", "L") and not image.mode.startswith("I;16"):
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
        image = image.convert("L")
    return np.asarray(image)


def _write(path: Path, mask: np.ndarray) -> None:
    with path.open("xb") as file:  # never overwrites a file
        if path.suffix == ".npy":
            np.save(file, mask)
        else:
            from PIL import Image

            Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")


def main() -> None:
    """Writes the masks of the slices on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("slices", nargs="+", type=Path, help="grey (H, W): .npy, PNG or JPEG")
    parser.add_argument("--model", type=Path, help=f"by default {MODELS[0]}, or else {MODELS[1]}, beside this file")
    arguments = parser.parse_args()
    for path in arguments.slices:
        image = _read(path)
        if image.ndim != 2 or not np.isfinite(image).all():
            sys.exit(f"error: {path} is not one grey slice (H, W) of finite values: save it as such.")
        (mask,) = masks([image], model=arguments.model)
        target = path.with_name(f"{path.stem}_mask{'.npy' if path.suffix == '.npy' else '.png'}")
        try:
            _write(target, mask)
        except FileExistsError:
            sys.exit(f"error: {target} is there already: move it away first.")
        print(f"{target}: {np.count_nonzero(mask)} of {mask.size} pixels are tumour")


if __name__ == "__main__":
    main()
