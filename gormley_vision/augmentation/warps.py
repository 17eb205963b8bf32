"""The geometric transforms of ADA (Karras et al. 2020, arXiv:2006.06676, appendix B): matrices, and one interpolation.

A transform is a function of (numbers, probability, shape of the images [B, H, W, C]) to inverse matrices, float32
[B, 3, 3]: each maps (x, y, 1) of a pixel of the result, in pixels from the image's centre, to where it comes from.
Numbers are float32 [4, B], uniform in [0, 1): the first decides to which images the transform applies. Where it does
not, the matrix is the identity, exactly. Matrices are multiplied elementwise: a matrix product may round to bfloat16 on
a TPU, and flips, quarter turns and whole-pixel shifts shall be exact.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Shape = tuple[int, ...]
Warp = Callable[[jax.Array, jax.Array, Shape], tuple[jax.Array, ...]]


def between(numbers: jax.Array, low: float, high: float) -> jax.Array:
    """Return what is uniform in [low, high) from float32 numbers that are in [0, 1)."""
    return low + (high - low) * numbers


def normal(numbers: jax.Array, deviation: float) -> jax.Array:
    """Return what is normal about 0 from float32 numbers uniform in [0, 1), which are multiples of 2^-23."""
    return deviation * math.sqrt(2) * jax.lax.erf_inv(2 * numbers - (1 - 2**-23))  # between them, so never infinite


def below(numbers: jax.Array, count: int) -> jax.Array:
    """Return int32 in 0 ... count - 1, equally likely, from numbers uniform in [0, 1)."""
    return jnp.floor(numbers * count).astype(jnp.int32)


def homogeneous(linear: list[list[jax.Array | float]], offset: list[jax.Array | float]) -> jax.Array:
    """Return matrices float32 [B, n + 1, n + 1] of n rows of n entries and n offsets, each [B] or one for all."""
    side = len(offset)
    rows = [[*row, last] for row, last in zip(linear, offset, strict=True)] + [[0.0] * side + [1.0]]
    entries = jnp.broadcast_arrays(*(jnp.asarray(entry, jnp.float32) for row in rows for entry in row))
    return jnp.stack(entries, axis=-1).reshape(-1, side + 1, side + 1)


def product(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return the matrix products first @ second of [B, n, n]."""
    return jnp.sum(first[:, :, :, None] * second[:, None, :, :], axis=2)


# ---------------------------------------------------------------------------------------------------------
# Transforms.


def flip(numbers: jax.Array, probability: jax.Array, shape: Shape) -> tuple[jax.Array, ...]:
    """Mirror left to right one in two of the images that this applies to."""
    mirrored = (numbers[0] < probability) & (numbers[1] < 0.5)
    return (homogeneous([[jnp.where(mirrored, -1.0, 1.0), 0.0], [0.0, 1.0]], [0.0, 0.0]),)


def rotate90(numbers: jax.Array, probability: jax.Array, shape: Shape) -> tuple[jax.Array, ...]:
    """Turn by 0, 1, 2 or 3 quarters about the centre."""
    turns = jnp.where(numbers[0] < probability, below(numbers[1], 4), 0)
    cos = jnp.array([1.0, 0.0, -1.0, 0.0], jnp.float32)
    sin = jnp.array([0.0, 1.0, 0.0, -1.0], jnp.float32)
    return (_rotated(cos[turns], sin[turns]),)


def integer_translation(numbers: jax.Array, probability: jax.Array, shape: Shape) -> tuple[jax.Array, ...]:
    """Shift by up to an eighth of the side, rounded to pixels."""
    x, y = (jnp.round(between(numbers[i], -0.125, 0.125) * side) for i, side in ((1, shape[2]), (2, shape[1])))
    return (_shifted(numbers[0] < probability, x, y),)


def scale(numbers: jax.Array, probability: jax.Array, shape: Shape) -> tuple[jax.Array, ...]:
    """Multiply the size by 2^N(0, 0.2^2)."""
    inverse = jnp.exp2(jnp.where(numbers[0] < probability, -normal(numbers[1], 0.2), 0.0))
    return (homogeneous([[inverse, 0.0], [0.0, inverse]], [0.0, 0.0]),)


def rotation(numbers: jax.Array, probability: jax.Array, shape: Shape) -> tuple[jax.Array, ...]:
    """Rotate by uniform angles, before and after anisotropic scaling; `probability` is that of at least one of them."""
    each = 1 - jnp.sqrt(jnp.clip(1 - probability, 0, 1))
    angles = (jnp.where(numbers[i] < each, between(numbers[i + 2], -math.pi, math.pi), 0.0) for i in (0, 1))
    before, after = (_rotated(jnp.cos(angle), jnp.sin(angle)) for angle in angles)
    return before, after


def anisotropic_scale(numbers: jax.Array, probability: jax.Array, shape: Shape) -> tuple[jax.Array, ...]:
    """Multiply the width by 2^N(0, 0.2^2), and the height by the inverse."""
    power = jnp.where(numbers[0] < probability, normal(numbers[1], 0.2), 0.0)
    return (homogeneous([[jnp.exp2(-power), 0.0], [0.0, jnp.exp2(power)]], [0.0, 0.0]),)


def fractional_translation(numbers: jax.Array, probability: jax.Array, shape: Shape) -> tuple[jax.Array, ...]:
    """Shift by N(0, 0.125^2) of the side."""
    x, y = normal(numbers[1], 0.125) * shape[2], normal(numbers[2], 0.125) * shape[1]
    return (_shifted(numbers[0] < probability, x, y),)


def _rotated(cos: jax.Array, sin: jax.Array) -> jax.Array:
    return homogeneous([[cos, -sin], [sin, cos]], [0.0, 0.0])


def _shifted(chosen: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return homogeneous([[1.0, 0.0], [0.0, 1.0]], [jnp.where(chosen, -x, 0.0), jnp.where(chosen, -y, 0.0)])


# Which of a transform's matrices comes when: ADA's order.
ORDER = (
    ("flip", 0),
    ("rotate90", 0),
    ("integer_translation", 0),
    ("scale", 0),
    ("rotation", 0),
    ("anisotropic_scale", 0),
    ("rotation", 1),
    ("fractional_translation", 0),
)


def composed(inverses: dict[str, tuple[jax.Array, ...]], count: int) -> jax.Array:
    """Return one inverse [B, 3, 3] of those of the transforms by their names, which are applied in `ORDER`."""
    matrix = jnp.tile(jnp.eye(3, dtype=jnp.float32), (count, 1, 1))
    for name, part in ORDER:
        if name in inverses:
            matrix = product(matrix, inverses[name][part])
    return matrix


# ---------------------------------------------------------------------------------------------------------
# Interpolation.


def warp(images: jax.Array, matrix: jax.Array) -> jax.Array:
    """Sample float images [B, H, W, C] where inverse matrices [B, 3, 3] say, bilinear; mirrored beyond the borders.

    Mirrored about the outermost pixels' centres, as often as it takes (ADA's code: once, then black). An identity
    matrix leaves its image to the bit. Four gathers, whose adjoints are scatters: on a CPU a tenth of the time of a
    product with interpolation weights [B, H*W, H], which is the alternative that needs neither.
    """
    batch, height, width, channels = images.shape
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :] - (width - 1) / 2
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None] - (height - 1) / 2
    entry = lambda row, column: matrix[:, row, column][:, None, None]  # noqa: E731
    column = _mirrored(entry(0, 0) * x + entry(0, 1) * y + entry(0, 2) + (width - 1) / 2, width)
    row = _mirrored(entry(1, 0) * x + entry(1, 1) * y + entry(1, 2) + (height - 1) / 2, height)
    left, top = jnp.floor(column), jnp.floor(row)
    right_part = (column - left)[..., None].astype(images.dtype)  # 0 in the last column, so that none is to its right
    bottom_part = (row - top)[..., None].astype(images.dtype)
    pixels = images.reshape(batch, height * width, channels)

    def at(row: jax.Array, column: jax.Array) -> jax.Array:
        row, column = row.astype(jnp.int32), column.astype(jnp.int32)
        index = jnp.minimum(row, height - 1) * width + jnp.minimum(column, width - 1)
        index = index.reshape(batch, height * width, 1)
        return jnp.take_along_axis(pixels, index, axis=1, mode="promise_in_bounds").reshape(images.shape)

    upper = _interpolated(at(top, left), at(top, left + 1), right_part)
    lower = _interpolated(at(top + 1, left), at(top + 1, left + 1), right_part)
    moved = jnp.any(matrix != jnp.eye(3, dtype=matrix.dtype)[None], axis=(1, 2))
    return jnp.where(moved[:, None, None, None], _interpolated(upper, lower, bottom_part), images)


def _mirrored(position: jax.Array, side: int) -> jax.Array:
    """Fold positions, in pixels from the first pixel's centre, into 0 ... side - 1."""
    last = side - 1
    return last - jnp.abs(jnp.mod(position, 2 * last) - last) if last else jnp.zeros_like(position)


def _interpolated(first: jax.Array, second: jax.Array, share: jax.Array) -> jax.Array:
    return first + share * (second - first)
