"""Sizes of images: MATLAB's bicubic `imresize`, with which super-resolution makes its inputs, and pixel shuffling."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def imresize(images: jax.Array, to: float | tuple[int, int], *, antialias: bool = True) -> jax.Array:
    """Resize [B, H, W, C] by a factor, or to (height, width), as MATLAB's `imresize(..., 'bicubic')` does.

    Keys's cubic kernel with a = -1/2 (1981, "Cubic convolution interpolation for digital image processing"); along a
    side that shrinks it is stretched by 1 / factor, unless `antialias` is false. Outside, the image is mirrored, its
    border pixels twice; weights sum to 1. A factor makes the sides ceil(factor * side). Values may leave the range of
    the input, and are not rounded (MATLAB rounds those of uint8). Returns float32 or wider.

    Each side is one product with a dense constant matrix, which suits images of some hundred pixels.

    Raises:
        ValueError: a factor or a side is not positive.
    """
    sides = images.shape[1:3]
    if isinstance(to, tuple):
        sizes, factors = list(to), [size / side for size, side in zip(to, sides, strict=True)]
    else:  # rounded first: 50 * 1.1 is above 55 in floating point
        sizes, factors = [math.ceil(round(side * to, 9)) for side in sides], [to, to]
    if min(sizes) < 1:
        raise ValueError(f"images are resized by a positive factor or to positive sides, not to {to}")
    x = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    rows, columns = (
        jnp.asarray(_cubic_weights(*about, antialias), x.dtype) for about in zip(sides, sizes, factors, strict=True)
    )
    exact = jax.lax.Precision.HIGHEST  # otherwise bfloat16 on TPUs
    x = jnp.einsum("ph,bhwc->bpwc", rows, x, precision=exact)
    return jnp.einsum("qw,bpwc->bpqc", columns, x, precision=exact)


def _cubic_weights(side: int, size: int, factor: float, antialias: bool) -> np.ndarray:
    """Return the weights [size, side] of `side` pixels in each of `size` pixels that are 1 / factor of them wide."""
    stretch = max(1.0, 1 / factor) if antialias else 1.0
    centres = (np.arange(size) + 0.5) / factor - 0.5  # in pixels of the input
    taps = np.floor(centres - 2 * stretch)[:, None] + np.arange(math.ceil(4 * stretch) + 2)[None]
    weights = _cubic((centres[:, None] - taps) / stretch)
    mirrored = taps.astype(int) % (2 * side)
    mirrored = np.where(mirrored < side, mirrored, 2 * side - 1 - mirrored)
    matrix = np.zeros((size, side))
    np.add.at(matrix, (np.arange(size)[:, None], mirrored), weights)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def pixel_shuffle(x: jax.Array, factor: int) -> jax.Array:
    """Turn channels into pixels: [B, H, W, C * factor^2] -> [B, H * factor, W * factor, C].

    The periodic shuffling of Shi et al. 2016 (arXiv:1609.05158, equation 4), but with channels in PyTorch's order (C,
    row, column) instead of C last, so that weights convert.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // factor**2, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, height * factor, width * factor, channels // factor**2)
