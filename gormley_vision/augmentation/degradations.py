"""Makes inputs from targets inside a training step, for nets that undo it: blurred, compressed, with a hole.

Images are [B, H, W, C] in [-1, 1], float32; masks are bool [B, H, W, 1], True where known (`masks`). The fills at the
end are what a net that fills holes has to be better than, as grey is for colours.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.ndimage import distance_transform_edt

# JFIF 1.02: from RGB to Y, Cb, Cr of full range; the first row is ITU-R BT.601's luma.
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
# Quantisation tables of ITU-T T.81, annex K.1: of luma and of chroma, rows being vertical frequencies.
_LUMA_TABLE = """
    16 11 10 16 24 40 51 61   12 12 14 19 26 58 60 55   14 13 16 24 40 57 69 56   14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103 99"""
_CHROMA_TABLE = """
    17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99"""
_TABLES = np.stack([np.array(table.split(), np.int32).reshape(8, 8) for table in (_LUMA_TABLE, _CHROMA_TABLE)])


def gaussian_blur(images: jax.Array, sigma: float) -> jax.Array:
    """Convolve each channel with a normalised Gaussian of `sigma` pixels, cut off at 4 sigma.

    Borders are mirrored, edge pixels repeated: scipy.ndimage.gaussian_filter's default. It is a sum of shifted images,
    which no platform rounds to bfloat16.

    Raises:
        ValueError: `sigma` is not above 0.
    """
    if sigma <= 0:
        raise ValueError(f"a blur of sigma {sigma}: it must be above 0")
    radius = math.floor(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        pads = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        padded, side = jnp.pad(images, pads, mode="symmetric"), images.shape[axis]
        shifted = (lax.slice_in_dim(padded, first, first + side, axis=axis) for first in range(len(weights)))
        terms = (float(weight) * image for weight, image in zip(weights, shifted, strict=True))
        images = sum(terms, start=jnp.zeros_like(images))
    return images


def jpeg(images: jax.Array, quality: int | jax.Array) -> jax.Array:
    """Compress by JPEG at `quality` 1 ... 100 and decompress; grey or RGB without subsampling of colour (4:4:4).

    ITU-T T.81's baseline process with libjpeg's scaling of the tables of annex K.1, and rounding to integers where
    libjpeg rounds: of the images to 8 bits, of Y, Cb, Cr, of coefficients, of decoded pixels. Sizes that are no
    multiples of 8 are filled up with copies of the last row and column. `quality` may be traced, for a random one;
    beyond its range the nearest counts, as in libjpeg. The gradient is 0, as of all rounding.

    Deviation: the cosine transform is in float32, libjpeg's in integers. From Pillow's files of 40 photographs pixels
    differ by 0.02 (quality 5) to 0.17 (quality 95) of 255 on average, mostly not at all; by 55 at most.
    """
    batch, height, width, channels = images.shape
    pixels = jnp.clip(jnp.round((images + 1) * 127.5), 0, 255)
    if channels == 3:
        pixels = jnp.round(_mixed(pixels, _TO_YCC) + jnp.array([0, 128, 128], pixels.dtype)[None, None, None, :])
    pads = ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0))
    padded = jnp.pad(pixels - 128, pads, mode="edge")
    blocks = padded.reshape(batch, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8, channels)
    tables = _tables(quality).astype(images.dtype)[:channels].transpose(1, 2, 0)[None, None, :, None, :, :]
    eighths = jnp.round(8 * _transformed(blocks, _dct_matrix()))  # libjpeg's unit, so halves are as frequent as there
    coefficients = jnp.sign(eighths) * jnp.floor(jnp.abs(eighths) / (8 * tables) + 0.5) * tables
    pixels = _transformed(coefficients, _dct_matrix().T).reshape(padded.shape)[:, :height, :width]
    pixels = jnp.clip(jnp.floor(pixels + 128.501), 0, 255)  # halves go up, also those that float32 has just below
    if channels == 3:
        pixels -= jnp.array([0, 128, 128], pixels.dtype)[None, None, None, :]
        pixels = jnp.clip(jnp.round(_mixed(pixels, np.linalg.inv(_TO_YCC))), 0, 255)
    return pixels / 127.5 - 1


def composite(known: jax.Array, predicted: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the known image where it is known, to the bit, and the predicted one in the hole."""
    return jnp.where(mask, known, predicted.astype(known.dtype))


def mean_fill(images: jax.Array, mask: jax.Array) -> jax.Array:
    """Fill each image's hole with the mean colour of what is known of it; with 0 if nothing is."""
    total = jnp.sum(jnp.where(mask, images, 0), axis=(1, 2), keepdims=True)
    count = jnp.sum(mask, axis=(1, 2), keepdims=True)
    return composite(images, jnp.broadcast_to(total / jnp.maximum(count, 1), images.shape), mask)


def nearest_fill(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill holes with the nearest known pixel, by Euclidean distance. numpy, not for the inside of a step.

    Raises:
        ValueError: nothing is known of an image.
    """
    filled = []
    for image, known in zip(np.asarray(images), np.asarray(mask)[..., 0], strict=True):
        if not known.any():
            raise ValueError("nothing is known of an image: it has no nearest known pixel")
        rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
        filled.append(image[rows, columns])
    return np.stack(filled)


def _mixed(images: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Multiply each pixel by a matrix [O, C]."""
    return jnp.einsum("bhwc,oc->bhwo", images, jnp.asarray(matrix, images.dtype), precision="highest")


def _tables(quality: int | jax.Array) -> jax.Array:
    """Return the tables of Y, Cb, Cr at a quality, int32 [3, 8, 8]: jpeg_quality_scaling, jpeg_add_quant_table."""
    quality = jnp.clip(jnp.asarray(quality), 1, 100)
    percent = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    luma, chroma = jnp.clip((_TABLES * percent + 50) // 100, 1, 255)
    return jnp.stack([luma, chroma, chroma])


def _dct_matrix() -> np.ndarray:
    """Return the orthonormal cosine transform of 8 numbers, [frequency, place]: T.81, A.3.3."""
    frequency, place = np.arange(8)[:, None], np.arange(8)[None, :]
    return np.where(frequency, 0.5, math.sqrt(1 / 8)) * np.cos((2 * place + 1) * frequency * math.pi / 16)


def _transformed(blocks: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Transform rows and columns of blocks [B, h, 8, w, 8, C] by a matrix [8, 8]."""
    each = jnp.asarray(matrix, blocks.dtype)
    return jnp.einsum("bhiwjc,ui,vj->bhuwvc", blocks, each, each, precision="highest")
