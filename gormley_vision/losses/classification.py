"""Losses of classifiers, on arrays."""

import jax
import jax.numpy as jnp


def softmax_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-sum_y targets log softmax(logits), each row's, [B] nats, for `logits` and distributions `targets` [B, Y]."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {logits.shape} do not match targets {targets.shape}")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1)
