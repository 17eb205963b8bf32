"""Colour spaces: sRGB and CIE Lab. Pure functions of images [B, H, W, C], differentiable everywhere.

sRGB is IEC 61966-2-1: primaries of ITU-R BT.709, white D65, and its transfer curve. The white of Lab is that of the
standard's own matrix, so that greys have a = b = 0 to rounding (scikit-image's differ from it by less than 0.005).
"""

import jax
import jax.numpy as jnp
import numpy as np

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_TO_XYZ /= _TO_XYZ.sum(axis=1, keepdims=True)  # relative to white, which is (1, 1, 1)
_BEND = 6 / 29  # where Lab's cube root becomes a straight line: CIE 15, delta


def rgb_to_lab(images: jax.Array) -> jax.Array:
    """Return CIE 1976 L*a*b* [B, H, W, 3] of sRGB in [-1, 1]: L in [0, 100], a and b within about -108 ... 99."""
    encoded = (images + 1) / 2
    # Each power is of a number away from 0 even where `where` drops it: 0 times an infinite slope is NaN.
    curve = ((jnp.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4
    linear = jnp.where(encoded > 0.04045, curve, encoded / 12.92)
    xyz = _mixed(linear, _TO_XYZ)
    root = jnp.cbrt(jnp.maximum(xyz, _BEND**3))
    x, y, z = jnp.split(jnp.where(xyz > _BEND**3, root, xyz / (3 * _BEND**2) + 4 / 29), 3, axis=-1)
    return jnp.concatenate([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_to_rgb(lab: jax.Array) -> jax.Array:
    """Return sRGB [B, H, W, 3] of Lab, the inverse of `rgb_to_lab`: not clipped, so outside [-1, 1] if out of gamut.

    Below 0 the transfer curve goes on as the straight line that it is near 0, so colours out of gamut come back.
    """
    lightness, a, b = jnp.split(lab, 3, axis=-1)
    y = (lightness + 16) / 116
    roots = jnp.concatenate([y + a / 500, y, y - b / 200], axis=-1)
    xyz = jnp.where(roots > _BEND, roots**3, 3 * _BEND**2 * (roots - 4 / 29))
    linear = _mixed(xyz, np.linalg.inv(_TO_XYZ))
    curve = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return 2 * jnp.where(linear > 0.0031308, curve, 12.92 * linear) - 1


def _mixed(images: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Multiply each pixel by a matrix [O, C]; in full precision, which a TPU's matrix unit has not by default."""
    return jnp.einsum("bhwc,oc->bhwo", images, jnp.asarray(matrix, images.dtype), precision="highest")
