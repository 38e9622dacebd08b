"""Changes images and masks at random in training, on the device, inside the compiled step.

Flip, rotation, scale, shift and elastic deformation together are one warp, so that an image is interpolated only once:
linearly, with 0 beyond its edges. A mask is interpolated likewise and then thresholded at one half. A change with
strength 0 is not in the compiled program. Each change happens to a slice with the same probability, independently of
the others; only the flip has a probability of its own.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike

from brainseg_jax.errors import InputError

ELASTIC_KNOTS = 5  # the elastic displacement is drawn on a grid of 5×5 points and interpolated smoothly
BIAS_KNOTS = 3  # the brightness likewise, on 3×3 points
LOW_RESOLUTION, GATES = 1, 2  # folded into a key, for draws in addition to those that the key is split for
# The largest strengths; 1 for a change that is not listed.
LIMITS = {"rotation": 180.0, "scale": 0.99, "contrast": 0.99, "low_resolution": 0.9, "blur": 0.02}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Strengths of the changes, explained in brainseg_jax/config.py; 0 leaves a change out.

    Raises:
      InputError: a strength is outside its range.
    """

    probability: float
    flip: float
    rotation: float
    scale: float
    shift: float
    elastic: float
    gamma: float
    contrast: float
    bias: float
    blur: float
    low_resolution: float
    noise: float

    def __post_init__(self) -> None:  # noqa: D105
        for name, value in dataclasses.asdict(self).items():
            highest = LIMITS.get(name, 1.0)
            if not 0 <= value <= highest:
                raise InputError(f"config.augmentation.{name} is {value}: set it to a number from 0 to {highest}.")


def augment(key: Array, images: Array, masks: Array, *, augmentation: Augmentation) -> tuple[Array, Array]:
    """Changes each slice independently.

    Args:
      key: PRNG key; the same key gives the same changes.
      images: (B, S, S, 1) float32 in [0, 1].
      masks: (B, S, S, 1) float32, 0 or 1.
      augmentation: the strengths.

    Returns:
      Images (B, S, S, 1) in [0, 1] and masks, 0 or 1.
    """
    strength = augmentation
    warp_key, intensity_key = jax.random.split(key)
    if any((strength.flip, strength.rotation, strength.scale, strength.shift, strength.elastic)):

        def warp(key: Array, slice_: Array) -> Array:
            rows, columns = jnp.moveaxis(_source_points(key, images.shape[1], strength), -1, 0)
            return jax.vmap(lambda channel: map_coordinates(channel, [rows, columns], order=1), -1, -1)(slice_)

        warped = jax.vmap(warp)(jax.random.split(warp_key, len(images)), jnp.concatenate([images, masks], axis=-1))
        images, masks = warped[..., :1], (warped[..., 1:] >= 0.5).astype(jnp.float32)
    if any((strength.gamma, strength.contrast, strength.bias, strength.blur, strength.low_resolution, strength.noise)):
        images = _change_intensities(intensity_key, images, strength)
    return images, masks


def _source_points(key: Array, side: int, strength: Augmentation) -> Array:
    """Draws the position from which each pixel of a warped slice is taken: (S, S, 2) rows and columns."""
    flip_key, angle_key, scale_key, shift_key, elastic_key = jax.random.split(key, 5)
    happens = _gates(key, strength.probability)
    middle = (side - 1) / 2
    steps = jnp.arange(side, dtype=jnp.float32) - middle
    rows, columns = jnp.meshgrid(steps, steps, indexing="ij")
    angle = jnp.deg2rad(happens("rotation", jax.random.uniform(angle_key, minval=-1.0) * strength.rotation, 0.0))
    scale = happens("scale", 1 + jax.random.uniform(scale_key, minval=-1.0) * strength.scale, 1.0)
    sign = jnp.where(jax.random.bernoulli(flip_key, strength.flip), -1.0, 1.0)
    shift = happens("shift", jax.random.uniform(shift_key, (2,), minval=-1.0) * strength.shift * side, 0.0)
    points = jnp.stack(
        [
            (jnp.cos(angle) * rows - jnp.sin(angle) * columns) / scale + shift[0],
            sign * (jnp.sin(angle) * rows + jnp.cos(angle) * columns) / scale + shift[1],
        ],
        axis=-1,
    )
    if strength.elastic:
        knots = jax.random.normal(elastic_key, (ELASTIC_KNOTS, ELASTIC_KNOTS, 2)) * strength.elastic * side
        points = happens("elastic", points + jax.image.resize(knots, (side, side, 2), "cubic"), points)
    return points + middle


def _change_intensities(key: Array, images: Array, strength: Augmentation) -> Array:
    """Changes grey levels; masks stay as they are."""
    gamma_key, contrast_key, level_key, noise_key, bias_key, blur_key = jax.random.split(key, 6)
    one_each = (len(images), 1, 1, 1)
    happens = _gates(key, strength.probability, shape=one_each)
    if strength.gamma:
        exponent = jnp.exp(jax.random.normal(gamma_key, one_each) * strength.gamma)
        images = happens("gamma", jnp.maximum(images, 1e-6) ** exponent, images)
    if strength.contrast:
        factor = 1 + jax.random.uniform(contrast_key, one_each, minval=-1.0) * strength.contrast
        mean = images.mean(axis=(1, 2, 3), keepdims=True)
        images = happens("contrast", mean + factor * (images - mean), images)
    if strength.bias:
        knots = jax.random.normal(bias_key, (len(images), BIAS_KNOTS, BIAS_KNOTS, 1)) * strength.bias
        images = happens("bias", images * jnp.exp(jax.image.resize(knots, images.shape, "cubic")), images)
    if strength.blur:
        sigmas = jax.random.uniform(blur_key, one_each) * strength.blur
        images = happens("blur", _blur(sigmas, images, strength.blur), images)
    if strength.low_resolution:
        lost = jax.random.uniform(jax.random.fold_in(key, LOW_RESOLUTION), (len(images),)) * strength.low_resolution
        images = happens("low_resolution", jax.vmap(_coarsen)(images, 1 / (1 - lost)), images)
    if strength.noise:
        level = jax.random.uniform(level_key, one_each) * strength.noise
        images = happens("noise", images + level * jax.random.normal(noise_key, images.shape), images)
    return images.clip(0.0, 1.0)


def _gates(key: Array, probability: float, *, shape: tuple[int, ...] = ()) -> Callable[[str, Array, ArrayLike], Array]:
    """Returns `happens(name, changed, unchanged)`: `changed` with this probability, drawn for each name."""
    names = [field.name for field in dataclasses.fields(Augmentation)]

    def happens(name: str, changed: Array, unchanged: ArrayLike) -> Array:
        if probability == 1:
            return changed
        gate_key = jax.random.fold_in(key, GATES + names.index(name))
        return jnp.where(jax.random.bernoulli(gate_key, probability, shape), changed, unchanged)

    return happens


def _coarsen(image: Array, factor: Array) -> Array:
    """Keeps every `factor`-th row and column of (S, S, C) and interpolates between them; `factor` is at least 1."""
    steps = jnp.arange(image.shape[0], dtype=jnp.float32) / factor
    low = jnp.floor(steps)
    weights = (steps - low)[:, None, None]
    nearest = [jnp.rint(step * factor).astype(jnp.int32).clip(0, len(steps) - 1) for step in (low, low + 1)]
    for _ in range(2):  # rows, then columns
        image = (1 - weights) * image[nearest[0]] + weights * image[nearest[1]]
        image = image.swapaxes(0, 1)
    return image


def _blur(sigmas: Array, images: Array, largest: float) -> Array:
    """Blurs each image with a Gaussian of its own standard deviation, (B, 1, 1, 1) in shares of the side."""
    side = images.shape[1]
    radius = max(1, math.ceil(2.5 * largest * side))
    offsets = range(-radius, radius + 1)
    # Below a fifth of a pixel the neighbours' weights vanish: nothing is blurred.
    exponents = [-0.5 * (offset / jnp.maximum(sigmas * side, 0.2)) ** 2 for offset in offsets]
    weights = jax.nn.softmax(jnp.stack(exponents), axis=0)
    for axis in (1, 2):
        margins = [(0, 0)] * 4
        margins[axis] = (radius, radius)
        padded = jnp.pad(images, margins, mode="edge")
        shifted = (jax.lax.slice_in_dim(padded, first, first + side, axis=axis) for first in range(len(offsets)))
        images = sum((weight * image for weight, image in zip(weights, shifted, strict=True)), jnp.zeros_like(images))
    return images
