"""Penalties of a discriminator's gradient with respect to images, which the discriminator descends with its objective.

A critic maps images [B, H, W, C] to logits [B] or [B, h, w]; of several logits of an image the mean counts. Norms are
over all pixels and channels of an image. A penalty is a function of (critic, key, real, fake) to a scalar in at least
float32, in the table `PENALTIES`; those of `SQUARED` can also be estimated without a gradient of a gradient.

BatchNorm couples the images of a batch, and the gradient is then not of one image
alone: WGAN-GP's authors advise against it (arXiv:1704.00028, section 4).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Critic = Callable[[jax.Array], jax.Array]


def squared_norms(critic: Critic, images: jax.Array) -> jax.Array:
    """Return the squared norm of the gradient of each image's logit, [B]."""

    def total(images: jax.Array) -> jax.Array:
        logits = critic(images)
        return jnp.sum(logits.reshape(len(images), -1).mean(axis=1))

    gradients = jax.grad(total)(images)
    gradients = gradients.astype(jnp.promote_types(gradients.dtype, jnp.float32))
    return jnp.sum(jnp.square(gradients).reshape(len(images), -1), axis=1)


def estimated_squared_norms(critic: Critic, images: jax.Array, key: jax.Array, size: float) -> jax.Array:
    """Return ((l(x + size e) - l(x)) / size)^2 for one Gaussian direction e an image, [B]: no gradient of a gradient.

    Its mean over directions is the squared norm up to O(size^2), as E[(g . e)^2] = |g|^2, and its standard deviation
    sqrt(2) |g|^2. Hyun et al. 2025 (GAT, arXiv:2509.24935) have size 0.01; a critic in bfloat16 resolves no such
    difference.
    """
    direction = jax.random.normal(key, images.shape, images.dtype)
    moved, here = (_by_image(critic(at)) for at in (images + size * direction, images))
    return jnp.square((moved - here) / size)


def _by_image(logits: jax.Array) -> jax.Array:
    """Return the mean logit of each image, [B], in at least float32."""
    return logits.reshape(len(logits), -1).mean(axis=1, dtype=jnp.promote_types(logits.dtype, jnp.float32))


def r1(critic: Critic, key: jax.Array, real: jax.Array, fake: jax.Array, difference: float = 0.0) -> jax.Array:
    """Return half of the mean squared norm at real images: Mescheder et al. 2018 (arXiv:1801.04406), equation 9.

    Exact, or with `difference` estimated by one of that size.
    """
    del fake
    return _half_mean(critic, real, key, difference)


def r2(critic: Critic, key: jax.Array, real: jax.Array, fake: jax.Array, difference: float = 0.0) -> jax.Array:
    """Return half of the mean squared norm at fake images: equation 10 of the same paper."""
    del real
    return _half_mean(critic, fake, key, difference)


def _half_mean(critic: Critic, images: jax.Array, key: jax.Array, difference: float) -> jax.Array:
    if difference:
        return jnp.mean(estimated_squared_norms(critic, images, key, difference)) / 2
    return jnp.mean(squared_norms(critic, images)) / 2


def gradient_penalty(critic: Critic, key: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    """Return mean (norm - 1)^2 between real i and fake i, each pair at its own point, uniform between the two.

    WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028), Algorithm 1: two-sided.
    """
    share = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
    return _distance_to_slope_one(critic, real + share * (fake - real))


def dragan(critic: Critic, key: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    """Return mean (norm - 1)^2 around real images: DRAGAN (Kodali et al. 2017, arXiv:1705.07215), as its code has it.

    Around means x + share * noise: noise uniform in [0, 1) times half the standard deviation of the whole batch, the
    share uniform for each image.
    """
    del fake
    noise_key, share_key = jax.random.split(key)
    noise = 0.5 * jnp.std(real) * jax.random.uniform(noise_key, real.shape)
    share = jax.random.uniform(share_key, (len(real),) + (1,) * (real.ndim - 1))
    return _distance_to_slope_one(critic, real + share * noise)


SQUARED = {"r1": r1, "r2": r2}
PENALTIES = {**SQUARED, "gradient_penalty": gradient_penalty, "dragan": dragan}


def _distance_to_slope_one(critic: Critic, images: jax.Array) -> jax.Array:
    norms = jnp.sqrt(squared_norms(critic, images) + 1e-12)  # the root's slope at 0 is infinite
    return jnp.mean(jnp.square(norms - 1))
