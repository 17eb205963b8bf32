"""What a task trains: a network with its optimizer state, and a moving average. Shared by tasks."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Variables = Mapping[str, Any]  # {'params': ..., 'batch_stats': ...}


@flax.struct.dataclass
class Network:
    """A network in training: variables, optimizer state, and how often it was updated (int32)."""

    variables: Variables
    opt_state: optax.OptState
    updates: jax.Array


def new_network(variables: Variables, optimizer: optax.GradientTransformation) -> Network:
    """Return a network before its first update."""
    return Network(variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32))


def apply_gradients(
    network: Network, gradients: Any, batch_stats: Any, optimizer: optax.GradientTransformation
) -> Network:
    """Apply one update: parameters by the optimizer, running statistics as given, all else as it was."""
    params = network.variables["params"]
    updates, opt_state = optimizer.update(gradients, network.opt_state, params)
    variables = {**network.variables, "params": optax.apply_updates(params, updates), "batch_stats": batch_stats}
    return Network(variables, opt_state, network.updates + 1)


def to_unit_range(images: jax.Array) -> jax.Array:
    """Convert uint8 [0, 255] to float32 [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def update_norm(before: Network, after: Network) -> jax.Array:
    """Return the norm of what an update added to the parameters."""
    return optax.tree.norm(optax.tree.sub(after.variables["params"], before.variables["params"]))


def moving_average(average: Any, current: Any, decay: jax.Array) -> Any:
    """Return decay * average + (1 - decay) * current, leaf by leaf."""
    return jax.tree.map(lambda a, c: a + (1 - decay).astype(c.dtype) * (c - a), average, current)


def ema_decay(images_seen: jax.Array, images_per_update: int, half_life: float | jax.Array, ramp: float) -> jax.Array:
    """Return the decay of one update for a half-life in images of at most `ramp` times the images seen so far.

    0.5 ** (images_per_update / h), h = min(half_life, ramp * images_seen): the form of Karras et al. 2020
    (arXiv:2006.06676, appendix), whose ramp keeps the start of a run out of its average. A half-life of 0
    gives decay 0: the average is the network itself.
    """
    reach = jnp.minimum(jnp.asarray(half_life, jnp.float32), jnp.float32(ramp) * images_seen)
    return jnp.float32(0.5) ** (jnp.float32(images_per_update) / jnp.maximum(reach, 1e-8))
