"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) of uint8 images: some operations of a table, at one magnitude.

Each image draws its own operations, uniformly and with replacement, from the 14 of the paper's section 3, and each
operation its own sign. The paper takes the ranges from AutoAugment (Cubuk et al. 2018, arXiv:1805.09501, table 6), but
published implementations differ in details. Here, with strength s = magnitude / 10 in [0, 1], and 0 being the identity
of all but autocontrast and equalize:

    rotate                                  +-30 s degrees around the centre     both papers
    shear_x, shear_y                        +-0.3 s, the first row/column stays  both papers
    translate_x, translate_y                +-0.45 s of the side                 timm; AutoAugment: 150 of 331 pixels
    color, contrast, brightness, sharpness  factor 1 +- 0.9 s                    timm's "increasing", torchvision
    posterize                               to 8 - round(4 s) bits               torchvision; AutoAugment: 8 to 4
    solarize                                inverts values >= 256 (1 - s)        AutoAugment

The operations are Pillow's, to within one level: interpolation is bilinear, and arithmetic is rounded where Pillow
truncates. Pixels from outside are grey, 128.

Under `vmap`, `lax.switch` computes every branch for every image and then selects. So the table has two parts: the
geometric operations only compute a matrix, and share one interpolation; the others need only arithmetic on an image,
and one histogram.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

FILL = 128
Operation = Callable[[jax.Array, jax.Array], jax.Array]

# ---------------------------------------------------------------------------------------------------------
# Tones: int32 [H, W, C] of 0 ... 255 and a signed strength in [-1, 1] to int32 of the same shape.


def _identity(image: jax.Array, strength: jax.Array) -> jax.Array:
    return image


def _autocontrast(image: jax.Array, strength: jax.Array) -> jax.Array:
    """Stretch each channel to 0 ... 255; a constant one is unchanged."""
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    return jnp.where(high > low, (image - low) * 255 // jnp.maximum(high - low, 1), image)


def _equalize(image: jax.Array, strength: jax.Array) -> jax.Array:
    """Map each channel through its own cumulative histogram, in Pillow's integers."""
    height, width, channels = image.shape
    values = image.reshape(height * width, channels).T  # [C, H*W]
    histogram = jax.vmap(lambda v: jnp.zeros(256, jnp.int32).at[v].add(1))(values)  # [C, 256]
    at_maximum = jnp.sum(values == values.max(1, keepdims=True), axis=1, keepdims=True)
    step = (height * width - at_maximum) // 255  # [C, 1]
    below = jnp.cumsum(histogram, axis=1) - histogram
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    table = jnp.where(step > 0, table, jnp.arange(256)[None])
    return jnp.take_along_axis(table, values, axis=1).T.reshape(image.shape)


def _solarize(image: jax.Array, strength: jax.Array) -> jax.Array:
    return jnp.where(image < 256 * (1 - jnp.abs(strength)), image, 255 - image)


def _posterize(image: jax.Array, strength: jax.Array) -> jax.Array:
    dropped = jnp.round(4 * jnp.abs(strength)).astype(jnp.int32)
    return (image >> dropped) << dropped


def _color(image: jax.Array, strength: jax.Array) -> jax.Array:
    """Move away from or towards grey; a grey image is unchanged."""
    return _enhance(jnp.broadcast_to(_luma(image), image.shape), image, strength)


def _contrast(image: jax.Array, strength: jax.Array) -> jax.Array:
    """Move away from or towards the mean luma."""
    luma = _luma(image)
    return _enhance(jnp.full_like(image, jnp.floor(jnp.mean(luma, dtype=jnp.float32) + 0.5)), image, strength)


def _brightness(image: jax.Array, strength: jax.Array) -> jax.Array:
    """Move away from or towards black."""
    return _enhance(jnp.zeros_like(image), image, strength)


def _sharpness(image: jax.Array, strength: jax.Array) -> jax.Array:
    """Move away from or towards a 3x3 mean that counts the centre 5 times; the outermost pixels are unchanged."""
    height, width, _ = image.shape
    rows = image[: height - 2] + image[1 : height - 1] + image[2:]
    around = rows[:, : width - 2] + rows[:, 1 : width - 1] + rows[:, 2:] + 4 * image[1:-1, 1:-1]
    return _enhance(image.at[1:-1, 1:-1].set((2 * around + 13) // 26), image, strength)


def _enhance(degenerate: jax.Array, image: jax.Array, strength: jax.Array) -> jax.Array:
    """Return degenerate + (1 + 0.9 s) * (image - degenerate), rounded and clipped."""
    value = degenerate + (1 + 0.9 * strength) * (image - degenerate)
    return jnp.clip(jnp.round(value), 0, 255).astype(jnp.int32)


def _luma(image: jax.Array) -> jax.Array:
    """Return int32 [H, W, 1]: ITU-R 601 in Pillow's integers, or the single channel."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = image[..., :1], image[..., 1:2], image[..., 2:]
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


# ---------------------------------------------------------------------------------------------------------
# Geometry: from sides (H, W) as float32 [2] and a signed strength to the matrix [2, 3] that maps a pixel (x, y, 1) of
# the result, its centre at halves, to its source.


def _stay(sides: jax.Array, strength: jax.Array) -> jax.Array:
    return _matrix(1, 0, 0, 0, 1, 0)


def _rotate(sides: jax.Array, strength: jax.Array) -> jax.Array:
    """Rotate anticlockwise."""
    angle = strength * (30 * math.pi / 180)
    cos, sin, y, x = jnp.cos(angle), jnp.sin(angle), sides[0] / 2, sides[1] / 2
    return _matrix(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _shear_x(sides: jax.Array, strength: jax.Array) -> jax.Array:
    return _matrix(1, 0.3 * strength, 0, 0, 1, 0)


def _shear_y(sides: jax.Array, strength: jax.Array) -> jax.Array:
    return _matrix(1, 0, 0, 0.3 * strength, 1, 0)


def _translate_x(sides: jax.Array, strength: jax.Array) -> jax.Array:
    return _matrix(1, 0, 0.45 * strength * sides[1], 0, 1, 0)


def _translate_y(sides: jax.Array, strength: jax.Array) -> jax.Array:
    return _matrix(1, 0, 0, 0, 1, 0.45 * strength * sides[0])


def _matrix(*entries: jax.Array | float) -> jax.Array:
    return jnp.stack([jnp.asarray(entry, jnp.float32) for entry in entries]).reshape(2, 3)


def _warp(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Sample int32 [H, W, C] of 0 ... 255 at positions given by `matrix` [2, 3], bilinear; `FILL` outside of the image.

    A pixel's channels are gathered as one word: a gather of rows of three takes a TPU five times as long, on paper.
    """
    height, width, channels = image.shape
    x, y = jnp.arange(width)[None, :] + 0.5, jnp.arange(height)[:, None] + 0.5
    x, y = (row[0] * x + row[1] * y + row[2] for row in matrix)  # not a matrix product, which may round to bfloat16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    left, top = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
    right_part, bottom_part = x - 0.5 - left, y - 0.5 - top  # [H, W]
    shifts = 8 * np.arange(channels, dtype=np.int32)
    words = jnp.sum(image << shifts[None, None], axis=-1).reshape(-1)

    def at(row: jax.Array, column: jax.Array) -> jax.Array:
        row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
        return words.at[(row * width + column).astype(jnp.int32)].get(mode="promise_in_bounds")

    corners = at(top, left), at(top, left + 1), at(top + 1, left), at(top + 1, left + 1)

    def channel(shift: int) -> jax.Array:
        top_left, top_right, bottom_left, bottom_right = ((word >> shift & 255).astype(jnp.float32) for word in corners)
        above = top_left + right_part * (top_right - top_left)
        below = bottom_left + right_part * (bottom_right - bottom_left)
        value = jnp.round(above + bottom_part * (below - above)).astype(jnp.int32)
        return jnp.where(inside, value, FILL)

    return jnp.stack([channel(int(shift)) for shift in shifts], axis=-1)


# ---------------------------------------------------------------------------------------------------------
# The table.

TONES: dict[str, Operation] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "solarize": _solarize,
    "color": _color,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}
MATRICES: dict[str, Operation] = {
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
OPERATIONS = (*TONES, *MATRICES)


def apply_operation(image: jax.Array, index: jax.Array, strength: jax.Array) -> jax.Array:
    """Apply `OPERATIONS[index]` to a uint8 image [H, W, C] at a signed strength in [-1, 1]; some ignore the sign."""
    sides = jnp.array(image.shape[:2], jnp.float32)
    is_tone = index < len(TONES)
    matrices = (_stay, *MATRICES.values())
    matrix = jax.lax.switch(jnp.where(is_tone, 0, index - len(TONES) + 1), matrices, sides, strength)
    warped = _warp(image.astype(jnp.int32), matrix)
    tones = tuple(TONES.values())  # the first of which is the identity
    return jax.lax.switch(jnp.where(is_tone, index, 0), tones, warped, strength).astype(jnp.uint8)


def randaugment(key: jax.Array, images: jax.Array, *, operations: int, magnitude: float) -> jax.Array:
    """Apply `operations` random operations to each uint8 image [B, H, W, 1 or 3], at `magnitude` in [0, 10]."""
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"{images.dtype} images {images.shape} are not uint8 [B, H, W, 1 or 3]")
    if operations < 0 or not 0 <= magnitude <= 10:
        raise ValueError(
            f"{operations} operations at magnitude {magnitude}: need at least 0 operations, and a magnitude of 0 to 10"
        )
    index_key, sign_key = jax.random.split(key)
    shape = (operations, images.shape[0])
    indices = jax.random.randint(index_key, shape, 0, len(OPERATIONS))
    strengths = jax.random.rademacher(sign_key, shape, jnp.float32) * (magnitude / 10)
    operation = jax.vmap(apply_operation)
    # If unrolled, XLA recomputes parts of one operation for each use in the next one: a third slower on the CPU.
    return jax.lax.scan(lambda batch, drawn: (operation(batch, *drawn), None), images, (indices, strengths))[0]
