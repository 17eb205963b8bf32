"""How sharp images are: the energy of their gradient."""

import jax
import jax.numpy as jnp


def gradient_energy(images: jax.Array) -> jax.Array:
    """Return the mean squared forward difference along rows plus that along columns, of each of [B, H, W, C]: [B].

    In squared units of the images, at least float32. A blurred image has less than its target, a noisy one more: sharp
    is what comes near the target's energy.

    Raises:
        ValueError: an image of less than 2x2 pixels.
    """
    if min(images.shape[1:3]) < 2:
        raise ValueError(f"images of {images.shape[1]}x{images.shape[2]} pixels have no differences")
    images = images.astype(jnp.promote_types(images.dtype, jnp.float32))  # differences of uint8 would wrap around
    down, right = (jnp.mean(jnp.square(jnp.diff(images, axis=axis)), axis=(1, 2, 3)) for axis in (1, 2))
    return down + right
