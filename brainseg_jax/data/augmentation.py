"""Random changes of images and masks in training, on the device, inside the compiled step.

Flip, rotation, scale, shift and elastic deformation are one warp, so that an image is interpolated once: linearly,
with black beyond its edges; its mask likewise and then cut at one half. Every change whose strength is 0 is left out of
the compiled program; with all at 0 images and masks pass as they are. Each change but the flip, which has a
probability of its own, happens to a slice with the same probability, independently of the others.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from brainseg_jax.errors import InputError

ELASTIC_KNOTS = 5  # the elastic displacement is drawn on so many points a side and interpolated smoothly
BIAS_KNOTS = 3  # the brightness likewise
LOW_RESOLUTION, GATES = 1, 2  # numbers folded into a key, for draws beside those that it is split for


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Strengths; 0 leaves a change out. brainseg_jax/config.py explains each.

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
            top = {"rotation": 180.0, "scale": 0.99, "contrast": 0.99, "low_resolution": 0.9, "blur": 0.02}.get(
                name, 1.0
            )
            if not 0 <= value <= top:
                raise InputError(f"config.augmentation.{name} is {value}: set it to a number from 0 to {top}.")

    @property
    def warps(self) -> bool:
        """Whether pixels move."""
        return any((self.flip, self.rotation, self.scale, self.shift, self.elastic))

    @property
    def changes_intensities(self) -> bool:
        """Whether grey levels change."""
        return any((self.gamma, self.contrast, self.bias, self.blur, self.low_resolution, self.noise))


def augment(key: Array, images: Array, masks: Array, *, augmentation: Augmentation) -> tuple[Array, Array]:
    """Changes each slice in its own way.

    Args:
      key: PRNG key; the same key gives the same changes.
      images: (B, S, S, 1) float32 in [0, 1].
      masks: (B, S, S, 1) float32, 0 or 1.
      augmentation: the strengths.

    Returns:
      Images (B, S, S, 1) in [0, 1] and masks, 0 or 1.
    """
    warp_key, intensity_key = jax.random.split(key)
    if augmentation.warps:
        keys = jax.random.split(warp_key, len(images))
        points = jax.vmap(lambda one: _source_points(one, images.shape[1], augmentation))(keys)
        warped = jax.vmap(_sample)(jnp.concatenate([images, masks], axis=-1), points)
        images, masks = warped[..., :1], (warped[..., 1:] >= 0.5).astype(jnp.float32)
    if augmentation.changes_intensities:
        images = _change_intensities(intensity_key, images, augmentation)
    return images, masks


def _source_points(key: Array, side: int, strength: Augmentation) -> Array:
    """Where each pixel of the result is taken from, (S, S, 2) rows and columns, for one slice."""
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


def _sample(image: Array, points: Array) -> Array:
    """Linear interpolation of (S, S, C) at (S, S, 2) rows and columns; 0 beyond the edges."""
    side = image.shape[0]
    low = jnp.floor(points)
    weights = points - low
    low = low.astype(jnp.int32)
    result = jnp.zeros_like(image)
    for down in (0, 1):
        for right in (0, 1):
            corner = low + jnp.array([down, right], jnp.int32)
            inside = ((corner >= 0) & (corner < side)).all(-1)
            row, column = jnp.moveaxis(jnp.clip(corner, 0, side - 1), -1, 0)
            share = jnp.abs(1 - down - weights[..., 0]) * jnp.abs(1 - right - weights[..., 1])
            result += jnp.where(inside, share, 0.0)[..., None] * image[row, column]
    return result


def _change_intensities(key: Array, images: Array, strength: Augmentation) -> Array:
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
    """`happens(name, changed, unchanged)`: the first with the probability, drawn for each name, else the second."""
    names = [field.name for field in dataclasses.fields(Augmentation)]

    def happens(name: str, changed: Array, unchanged: ArrayLike) -> Array:
        if probability == 1:
            return changed
        gate_key = jax.random.fold_in(key, GATES + names.index(name))
        return jnp.where(jax.random.bernoulli(gate_key, probability, shape), changed, unchanged)

    return happens


def _coarsen(image: Array, factor: Array) -> Array:
    """Keeps every `factor`-th row and column of (S, S, C), `factor` at least 1, and interpolates between them."""
    steps = jnp.arange(image.shape[0], dtype=jnp.float32) / factor
    low = jnp.floor(steps)
    weights = (steps - low)[:, None, None]
    nearest = [jnp.rint(step * factor).astype(jnp.int32).clip(0, len(steps) - 1) for step in (low, low + 1)]
    for _ in range(2):  # rows, then columns
        image = (1 - weights) * image[nearest[0]] + weights * image[nearest[1]]
        image = image.swapaxes(0, 1)
    return image


def _blur(sigmas: Array, images: Array, largest: float) -> Array:
    """Gaussian blur with a standard deviation (B, 1, 1, 1) of its own for each image, in shares of the side."""
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
        images = sum((weight * part for weight, part in zip(weights, shifted, strict=True)), jnp.zeros_like(images))
    return images
