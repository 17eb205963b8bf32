"""Penalties of a discriminator's gradient with respect to images, which the discriminator descends with its objective.

A critic maps images [B, H, W, C] to logits [B] or [B, h, w]; of several logits of an image the mean counts. Norms are
over all pixels and channels of an image. A penalty is a function of (critic, key, real, fake) to a scalar in at least
float32, in the table `PENALTIES`. BatchNorm couples the images of a batch, and the gradient is then not of one image
alone: WGAN-GP's authors advise against it (arXiv:1704.00028, section 4).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Critic = Callable[[jax.Array], jax.Array]


class Penalty(NamedTuple):
    """A penalty in a step: every `interval` steps, then `interval` times as strong (Karras et al. 2019, 1912.04958)."""

    kind: str  # of PENALTIES
    weight: float
    interval: int


def squared_norms(critic: Critic, images: jax.Array) -> jax.Array:
    """Return the squared norm of the gradient of each image's logit, [B]."""

    def total(images: jax.Array) -> jax.Array:
        logits = critic(images)
        return jnp.sum(logits.reshape(len(images), -1).mean(axis=1))

    gradients = jax.grad(total)(images)
    gradients = gradients.astype(jnp.promote_types(gradients.dtype, jnp.float32))
    return jnp.sum(jnp.square(gradients).reshape(len(images), -1), axis=1)


def r1(critic: Critic, key: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    """Return half of the mean squared norm at real images: Mescheder et al. 2018 (arXiv:1801.04406), equation 9."""
    del key, fake
    return jnp.mean(squared_norms(critic, real)) / 2


def r2(critic: Critic, key: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    """Return half of the mean squared norm at fake images: equation 10 of the same paper."""
    del key, real
    return jnp.mean(squared_norms(critic, fake)) / 2


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


PENALTIES = {"r1": r1, "r2": r2, "gradient_penalty": gradient_penalty, "dragan": dragan}


def _distance_to_slope_one(critic: Critic, images: jax.Array) -> jax.Array:
    norms = jnp.sqrt(squared_norms(critic, images) + 1e-12)  # the root's slope at 0 is infinite
    return jnp.mean(jnp.square(norms - 1))
