"""Augments what a discriminator sees, differentiably, so that a generator learns through it. Names: `policies`.

DiffAugment (Zhao et al. 2020, arXiv:2006.10738; DiffAugment_pytorch.py), images in [-1, 1] and not clipped after:

    brightness_shift        adds U(-0.5, 0.5)
    saturation_scale        times U(0, 2) about each pixel's mean over channels
    contrast_scale          times U(0.5, 1.5) about the image's mean over pixels and channels
    translation             by whole pixels, up to an eighth of the side both ways; zeros, grey, come in
    cutout                  zeros a rectangle of half of each side, its centre uniform: it may stick out

ADA (Karras et al. 2020, arXiv:2006.06676, appendix B; training/augment.py), the 'bgc' pipe, p being the probability:

    flip                    left to right, p then 1/2
    rotate90                by 0, 90, 180 or 270 degrees
    integer_translation     by U(-0.125, 0.125) of the side, rounded to pixels
    scale                   times 2^N(0, 0.2^2)
    rotation                uniform angle, before and after anisotropic_scale with 1 - sqrt(1 - p) each
    anisotropic_scale       width times 2^N(0, 0.2^2), height times the inverse
    fractional_translation  by N(0, 0.125^2) of the side
    brightness              adds N(0, 0.2^2)
    contrast                times 2^N(0, 0.5^2), about 0
    luma_flip               reflects colours at the plane across (1, 1, 1), p then 1/2
    hue                     rotates colours about (1, 1, 1) by U(-pi, pi)
    saturation              the distance from that axis times 2^N(0, 1)

Each image draws for each transform whether it applies. ADA's geometric ones are one matrix and one interpolation
(`warps`), its colours one matrix. What is done differently:

- ADA doubles the resolution with a wavelet filter (sym6) and halves it after; here interpolation is bilinear, at the
  image's own resolution. So a rotation or a fraction of a pixel blurs more, and a smaller scale aliases. Flips, quarter
  turns and whole-pixel shifts are exact (a quarter turn only if height and width are both even or both odd).
- Beyond the mirror image next to a border ADA's pad is black; here it is mirrored again.
- Grey images (C = 1): of a colour matrix the mean over its three rows counts, as in ADA's code. So luma_flip negates,
  brightness and contrast are as for colours, and hue and saturation, which leave grey as it is, are left out.
- cutout is DiffAugment's, also in 'r3gan'. ADA's centre is not rounded to pixels, so that of its H + 1 positions
  along an even side the first and the last are half as likely.
- DiffAugment applies every transform to every image: that is probability 1. An eighth and a half of the side are
  rounded to the nearest here; a version of its code rounds them down.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from gormley_vision.augmentation import warps
from gormley_vision.augmentation.warps import below, between, homogeneous, normal

Requests = dict[str, tuple[jax.Array, jax.Array]]  # by name: its numbers, float32 [4, B], and its probability


class Transform(NamedTuple):
    """What a transform is, and a function of numbers uniform in [0, 1), float32 [4, B]; by the first, it is chosen.

    "pixels": of numbers and images, to changed images, for all of them. "warp": see `warps`. "colors": of numbers and a
    probability, to matrices [B, 4, 4] that map (red, green, blue, 1), exactly the identity where it is not chosen.
    """

    kind: Literal["pixels", "warp", "colors"]
    function: Callable


def augment(
    key: jax.Array, images: jax.Array, transforms: tuple[tuple[str, float], ...], probability: jax.Array | float
) -> jax.Array:
    """Augment each of the float images [B, H, W, C] in [-1, 1] on its own; same shape and dtype.

    Affine in the images, so differentiable as often as wanted. With probability 0 the images are returned to the bit.
    Arithmetic is in at least float32. A transform's draws depend on `key` and on its place in `TRANSFORMS`, not on
    which others there are; they are drawn for the whole batch, float32 for every dtype.

    Args:
        key: for this call.
        images: C is 1 or 3 for ADA's colours, anything for the others.
        transforms: pairs of a name in `TRANSFORMS` and a factor of the probability, as `policies.parsed` returns them.
            They are applied in the order of `TRANSFORMS`, whatever the order here.
        probability: of each transform for each image, in [0, 1]; may be traced.

    Raises:
        ValueError: images are not float [B, H, W, C], a name is not known or comes twice, ADA's colours get images of
            another number of channels, or the probability is a number outside [0, 1].
    """
    factors = _checked(images, transforms, probability)
    indices = {name: index for index, name in enumerate(TRANSFORMS) if name in factors}
    numbers = _numbers(key, list(indices.values()), len(images))
    probability = jnp.asarray(probability, jnp.float32)
    requests = {name: (numbers[place], probability * factors[name]) for place, name in enumerate(indices)}
    result = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    apply = {"pixels": _edited, "warp": _warped, "colors": _recolored}
    for kind, names in itertools.groupby(requests, key=lambda name: TRANSFORMS[name].kind):
        result = apply[kind](result, {name: requests[name] for name in names})
    return result.astype(images.dtype)


def _checked(
    images: jax.Array, transforms: tuple[tuple[str, float], ...], probability: jax.Array | float
) -> dict[str, float]:
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"{images.dtype} images {images.shape} are not float [B, H, W, C]")
    if isinstance(probability, int | float) and not 0 <= probability <= 1:
        raise ValueError(f"probability {probability} is not in [0, 1]")
    factors = dict(transforms)
    if unknown := factors.keys() - TRANSFORMS.keys():
        raise ValueError(f"no transforms are {', '.join(sorted(unknown))}: there are {', '.join(TRANSFORMS)}")
    if len(factors) < len(transforms):
        raise ValueError(f"a transform comes twice in {transforms}")
    colors = [name for name in factors if TRANSFORMS[name].kind == "colors"]
    if colors and images.shape[-1] not in (1, 3):
        raise ValueError(f"images {images.shape} are neither grey nor of three colours, as {', '.join(colors)} need")
    return factors


def _numbers(key: jax.Array, indices: list[int], count: int) -> jax.Array:
    """Draw float32 [len(indices), 4, count]. At once: compiling a draw for each takes twice as long in all."""
    draw = lambda index: jax.random.uniform(jax.random.fold_in(key, index), (4, count), jnp.float32)  # noqa: E731
    return jax.vmap(draw)(jnp.array(indices, jnp.int32))


def _edited(images: jax.Array, requests: Requests) -> jax.Array:
    for name, (numbers, probability) in requests.items():
        chosen = _each(numbers[0] < probability, images)
        images = jnp.where(chosen, TRANSFORMS[name].function(numbers, images), images)
    return images


def _warped(images: jax.Array, requests: Requests) -> jax.Array:
    inverses = {name: TRANSFORMS[name].function(*request, images.shape) for name, request in requests.items()}
    return warps.warp(images, warps.composed(inverses, len(images)))


def _recolored(images: jax.Array, requests: Requests) -> jax.Array:
    """Multiply colours by one matrix, the first transform's rightmost."""
    count, *_, channels = images.shape
    matrix = identity = jnp.tile(jnp.eye(4, dtype=jnp.float32), (count, 1, 1))
    for name, request in requests.items():
        if channels == 3 or name not in ("hue", "saturation"):
            matrix = warps.product(TRANSFORMS[name].function(*request), matrix)
    changed = jnp.any(matrix != identity, axis=(1, 2))
    linear, offset = matrix[:, :3, :3], matrix[:, :3, 3]
    if channels == 1:
        linear, offset = linear.sum(2).mean(1)[:, None, None], offset.mean(1)[:, None]
    # Not a matrix product, which may round to bfloat16 on a TPU; by channels, because on a CPU the backward pass of
    # sums over an axis of three takes several times as long.
    planes = [images[..., i] for i in range(channels)]
    each = lambda values: values.astype(images.dtype)[:, None, None]  # noqa: E731
    mixed = [
        sum((each(linear[:, row, i]) * planes[i] for i in range(channels)), start=each(offset[:, row]))
        for row in range(channels)
    ]
    return jnp.where(_each(changed, images), jnp.stack(mixed, axis=-1), images)


def _each(values: jax.Array, images: jax.Array) -> jax.Array:
    """Return one value an image, [B], as [B, 1, 1, 1]; numbers in the images' dtype."""
    return (values if values.dtype == bool else values.astype(images.dtype))[:, None, None, None]


# ---------------------------------------------------------------------------------------------------------
# Pixels: of numbers and images [B, H, W, C], to every one of which it is done.


def _brightness_shift(numbers: jax.Array, images: jax.Array) -> jax.Array:
    return images + _each(between(numbers[1], -0.5, 0.5), images)


def _saturation_scale(numbers: jax.Array, images: jax.Array) -> jax.Array:
    grey = jnp.mean(images, axis=3, keepdims=True)
    return grey + (images - grey) * _each(between(numbers[1], 0, 2), images)


def _contrast_scale(numbers: jax.Array, images: jax.Array) -> jax.Array:
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    return mean + (images - mean) * _each(between(numbers[1], 0.5, 1.5), images)


def _translation(numbers: jax.Array, images: jax.Array) -> jax.Array:
    """Cut a window out of each image padded with zeros."""
    down, right = (math.floor(side / 8 + 0.5) for side in images.shape[1:3])  # at most
    padded = jnp.pad(images, ((0, 0), (down, down), (right, right), (0, 0)))
    rows, columns = below(numbers[1], 2 * down + 1), below(numbers[2], 2 * right + 1)
    corners = jnp.stack([rows, columns, jnp.zeros_like(rows)], axis=1)
    return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, corner, images.shape[1:]))(padded, corners)


def _cutout(numbers: jax.Array, images: jax.Array) -> jax.Array:
    """Zero a rectangle; the official code clips its rows and columns to the image, which is the same."""

    def inside(numbers: jax.Array, side: int) -> jax.Array:
        length = math.floor(side / 2 + 0.5)
        center = below(numbers, side + 1 - length % 2)
        distance = jnp.arange(side)[None, :] - center[:, None] + length // 2
        return (distance >= 0) & (distance < length)  # [B, side]

    rows, columns = inside(numbers[1], images.shape[1]), inside(numbers[2], images.shape[2])
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0, images)


# ---------------------------------------------------------------------------------------------------------
# Colours: of numbers and a probability to matrices [B, 4, 4].


def _brightness(numbers: jax.Array, probability: jax.Array) -> jax.Array:
    offset = jnp.where(numbers[0] < probability, normal(numbers[1], 0.2), 0.0)
    return homogeneous([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [offset] * 3)


def _contrast(numbers: jax.Array, probability: jax.Array) -> jax.Array:
    factor = jnp.exp2(jnp.where(numbers[0] < probability, normal(numbers[1], 0.5), 0.0))
    return _about_luma(factor, 0.0, 0.0)


def _luma_flip(numbers: jax.Array, probability: jax.Array) -> jax.Array:
    """Householder: I - 2 v v^T with v = (1, 1, 1) / sqrt 3."""
    flipped = (numbers[0] < probability) & (numbers[1] < 0.5)
    return _about_luma(1.0, jnp.where(flipped, -2.0, 0.0), 0.0)


def _hue(numbers: jax.Array, probability: jax.Array) -> jax.Array:
    """Rodrigues: cos I + (1 - cos) v v^T + sin [v]x."""
    angle = jnp.where(numbers[0] < probability, between(numbers[1], -math.pi, math.pi), 0.0)
    return _about_luma(jnp.cos(angle), 1 - jnp.cos(angle), jnp.sin(angle))


def _saturation(numbers: jax.Array, probability: jax.Array) -> jax.Array:
    """Keep v v^T and multiply the rest: v v^T + s (I - v v^T)."""
    factor = jnp.exp2(jnp.where(numbers[0] < probability, normal(numbers[1], 1.0), 0.0))
    return _about_luma(factor, 1 - factor, 0.0)


def _about_luma(all_axes: jax.Array | float, along: jax.Array | float, across: jax.Array | float) -> jax.Array:
    """Return all_axes I + along v v^T + across [v]x, v = (1, 1, 1) / sqrt 3 the luma axis: [B, 4, 4]."""
    same, third, turn = all_axes + along / 3, along / 3, across / math.sqrt(3)
    before, after = third - turn, third + turn
    return homogeneous([[same, before, after], [after, same, before], [before, after, same]], [0.0, 0.0, 0.0])


# ---------------------------------------------------------------------------------------------------------
# The table, in the order of application: `policies.NAMES`.

TRANSFORMS: dict[str, Transform] = {
    "brightness_shift": Transform("pixels", _brightness_shift),
    "saturation_scale": Transform("pixels", _saturation_scale),
    "contrast_scale": Transform("pixels", _contrast_scale),
    "translation": Transform("pixels", _translation),
    "flip": Transform("warp", warps.flip),
    "rotate90": Transform("warp", warps.rotate90),
    "integer_translation": Transform("warp", warps.integer_translation),
    "scale": Transform("warp", warps.scale),
    "rotation": Transform("warp", warps.rotation),
    "anisotropic_scale": Transform("warp", warps.anisotropic_scale),
    "fractional_translation": Transform("warp", warps.fractional_translation),
    "brightness": Transform("colors", _brightness),
    "contrast": Transform("colors", _contrast),
    "luma_flip": Transform("colors", _luma_flip),
    "hue": Transform("colors", _hue),
    "saturation": Transform("colors", _saturation),
    "cutout": Transform("pixels", _cutout),
}
