"""How far an image is from its target: means over all pixels and channels, in at least float32.

All take two arrays of one shape [B, H, W, C] and raise ValueError for unlike ones.
"""

import jax
import jax.numpy as jnp


def l1(images: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean absolute error."""
    return jnp.mean(jnp.abs(_difference(images, targets)))


def l2(images: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean squared error."""
    return jnp.mean(jnp.square(_difference(images, targets)))


def charbonnier(images: jax.Array, targets: jax.Array) -> jax.Array:
    """Return mean sqrt(error^2 + 1e-6): Lai et al. 2017 (LapSRN, arXiv:1704.03915, section 3.3), smooth at 0."""
    return jnp.mean(jnp.sqrt(jnp.square(_difference(images, targets)) + 1e-6))


RECONSTRUCTION = {"l1": l1, "l2": l2, "charbonnier": charbonnier}


def _difference(images: jax.Array, targets: jax.Array) -> jax.Array:
    if images.shape != targets.shape:
        raise ValueError(f"images {images.shape} and targets {targets.shape} differ in shape")
    return images.astype(jnp.promote_types(images.dtype, jnp.float32)) - targets
