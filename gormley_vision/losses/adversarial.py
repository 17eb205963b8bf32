"""The objectives of a GAN's two-player game, computed from logits.

With D(x) = sigmoid(l(x)): log D = -softplus(-l) and log(1 - D) = -softplus(l), which is exact and finite
for any finite logit (at l = 1e4 the naive form gives log 0). Means are over all logits: one per image for
a DCGAN discriminator, one per patch for a PatchGAN (Isola et al. 2017, arXiv:1611.07004, section 3.2.2).
"""

import jax
import jax.numpy as jnp


def discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Return -mean[log D(x) + log(1 - D(G(z)))]: Goodfellow et al. 2014 (arXiv:1406.2661), Algorithm 1, negated.

    Args:
        real_logits, fake_logits: [B] or [B, h, w], of the same shape.

    Returns:
        A scalar, at least float32.

    Raises:
        ValueError: the shapes differ. Each is averaged separately, so no error of broadcasting would show it.
    """
    if real_logits.shape != fake_logits.shape:
        raise ValueError(f"real_logits {real_logits.shape} and fake_logits {fake_logits.shape} differ in shape")
    real, fake = _promoted(real_logits), _promoted(fake_logits)
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def saturating_generator_loss(fake_logits: jax.Array) -> jax.Array:
    """Return mean log(1 - D(G(z))), which the generator descends (Algorithm 1 of arXiv:1406.2661). A scalar."""
    return -jnp.mean(jax.nn.softplus(_promoted(fake_logits)))


def non_saturating_generator_loss(fake_logits: jax.Array) -> jax.Array:
    """Return -mean log D(G(z)): the same fixed point, stronger gradients early (section 3 of arXiv:1406.2661)."""
    return jnp.mean(jax.nn.softplus(-_promoted(fake_logits)))


GENERATOR_LOSSES = {
    "saturating": saturating_generator_loss,
    "non_saturating": non_saturating_generator_loss,
}


def _promoted(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
