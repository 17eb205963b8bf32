"""Losses of classifiers."""

import jax
import jax.numpy as jnp


def softmax_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return -sum_y targets log softmax(logits), [B] nats, of `logits` and distributions `targets`, both [B, Y]."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {logits.shape} do not match targets {targets.shape}")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1)
