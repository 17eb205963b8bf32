"""The objectives of a GAN's two-player game: for each player a function of logits, in the table `OBJECTIVES`.

With D(x) = sigmoid(l(x)): log D = -softplus(-l) and log(1 - D) = -softplus(l), which is exact and finite
for any finite logit (at l = 1e4 the naive form gives log 0). Means are over all logits: one per image for
a DCGAN discriminator, one per patch for a PatchGAN (Isola et al. 2017, arXiv:1611.07004, section 3.2.2).

All take logits [B] or [B, h, w] of real and of fake images, and return a scalar in at least float32, which the player
descends. They raise ValueError where the two shapes differ: each is averaged separately, so no error of broadcasting
would show it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

softplus = jax.nn.softplus


class Objective(NamedTuple):
    """What the players descend; `generator` takes (fake, real), and reads real logits if it is `relativistic`."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]  # (real, fake)
    generator: Callable[[jax.Array, jax.Array | None], jax.Array]
    relativistic: bool = False
    probabilities: bool = False  # the sigmoid of a logit is D's probability that an image is real


def discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Return -mean[log D(x) + log(1 - D(G(z)))]: Goodfellow et al. 2014 (arXiv:1406.2661), Algorithm 1, negated.

    With `smoothing` s the target of real images is 1 - s, and that of fakes stays 0: one-sided, as in Salimans et al.
    2016 (arXiv:1606.03498, section 3.4).
    """
    real, fake = _of_both(real_logits, fake_logits)
    return jnp.mean((1 - smoothing) * softplus(-real) + smoothing * softplus(real)) + jnp.mean(softplus(fake))


def saturating_generator_loss(fake_logits: jax.Array, real_logits: jax.Array | None = None) -> jax.Array:
    """Return mean log(1 - D(G(z))), which the generator descends (Algorithm 1 of arXiv:1406.2661): minimax."""
    del real_logits
    return -jnp.mean(softplus(_promoted(fake_logits)))


def non_saturating_generator_loss(fake_logits: jax.Array, real_logits: jax.Array | None = None) -> jax.Array:
    """Return -mean log D(G(z)): the same fixed point, stronger gradients early (section 3 of arXiv:1406.2661)."""
    del real_logits
    return jnp.mean(softplus(-_promoted(fake_logits)))


def hinge_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Return mean max(0, 1 - l(x)) + mean max(0, 1 + l(G(z))): Lim & Ye 2017 (arXiv:1705.02894)."""
    real, fake = _of_both(real_logits, fake_logits)
    return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))


def least_squares_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Return half of mean (l(x) - 1)^2 + mean l(G(z))^2: Mao et al. 2016 (arXiv:1611.04076), equation 9."""
    real, fake = _of_both(real_logits, fake_logits)
    return (jnp.mean(jnp.square(real - 1)) + jnp.mean(jnp.square(fake))) / 2


def least_squares_generator_loss(fake_logits: jax.Array, real_logits: jax.Array | None = None) -> jax.Array:
    """Return half of mean (l(G(z)) - 1)^2, of the same equation."""
    del real_logits
    return jnp.mean(jnp.square(_promoted(fake_logits) - 1)) / 2


def wasserstein_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Return mean l(G(z)) - mean l(x): Arjovsky et al. 2017 (arXiv:1701.07875), Algorithm 1, negated.

    It means something only for a Lipschitz discriminator: with clipped weights, a penalty or spectral normalisation.
    """
    real, fake = _of_both(real_logits, fake_logits)
    return jnp.mean(fake) - jnp.mean(real)


def minus_mean_generator_loss(fake_logits: jax.Array, real_logits: jax.Array | None = None) -> jax.Array:
    """Return -mean l(G(z)): the generator's with the hinge's and with Wasserstein's discriminator."""
    del real_logits
    return -jnp.mean(_promoted(fake_logits))


def paired_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Return mean softplus(-(l(x_i) - l(G(z_i)))): RpGAN (Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4.1).

    Real image i is paired with fake i, as in R3GAN (Huang et al. 2025, arXiv:2501.05441, equation 2).
    """
    real, fake = _of_both(real_logits, fake_logits)
    return jnp.mean(softplus(fake - real))


def paired_generator_loss(fake_logits: jax.Array, real_logits: jax.Array | None) -> jax.Array:
    """Return mean softplus(-(l(G(z_i)) - l(x_i))): RpGAN's, with other real images than the discriminator's."""
    real, fake = _of_both(real_logits, fake_logits)
    return jnp.mean(softplus(real - fake))


def average_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Return mean softplus(-(l(x) - mean l(G(z)))) + mean softplus(l(G(z)) - mean l(x)).

    RaSGAN of Jolicoeur-Martineau 2018 (arXiv:1807.00734), section 4.2.
    """
    real, fake = _of_both(real_logits, fake_logits)
    return jnp.mean(softplus(fake.mean() - real)) + jnp.mean(softplus(fake - real.mean()))


def average_generator_loss(fake_logits: jax.Array, real_logits: jax.Array | None) -> jax.Array:
    """Return RaSGAN's for the generator: the discriminator's with real and fake exchanged."""
    real, fake = _of_both(real_logits, fake_logits)
    return average_discriminator_loss(fake, real)


OBJECTIVES = {
    "non_saturating": Objective(discriminator_loss, non_saturating_generator_loss, probabilities=True),
    "saturating": Objective(discriminator_loss, saturating_generator_loss, probabilities=True),
    "hinge": Objective(hinge_discriminator_loss, minus_mean_generator_loss),
    "least_squares": Objective(least_squares_discriminator_loss, least_squares_generator_loss),
    "wasserstein": Objective(wasserstein_discriminator_loss, minus_mean_generator_loss),
    "relativistic_paired": Objective(paired_discriminator_loss, paired_generator_loss, relativistic=True),
    "relativistic_average": Objective(average_discriminator_loss, average_generator_loss, relativistic=True),
}


def _of_both(real_logits: jax.Array | None, fake_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    if real_logits is None or real_logits.shape != fake_logits.shape:
        shape = None if real_logits is None else real_logits.shape
        raise ValueError(f"real_logits {shape} and fake_logits {fake_logits.shape} differ in shape")
    return _promoted(real_logits), _promoted(fake_logits)


def _promoted(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
