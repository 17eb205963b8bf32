"""Adaptive discriminator augmentation: Karras et al. 2020 (ADA, arXiv:2006.06676), section 3.

The augmentation's probability p follows r = E[sign D(x)], over real images in training: above the target the
discriminator knows them too well, and p rises; below it falls. It moves once in `INTERVAL` steps, at a speed that goes
from 0 to 1 in a given number of images (500,000 in the paper). Its state is part of the run.
"""

import jax
import jax.numpy as jnp

INTERVAL = 4  # steps


def start() -> dict[str, jax.Array]:
    """Return the controller before training: its probability, and the sum of signs since it last moved."""
    return {"probability": jnp.zeros(()), "signs": jnp.zeros(())}


def steered(
    controller: dict[str, jax.Array], sign: jax.Array, step: jax.Array, target: float, speed: float
) -> dict[str, jax.Array]:
    """Return the controller after a step with this mean sign of real logits; `speed` is a step's share of 0 to 1."""
    signs = controller["signs"] + sign
    moves = step % INTERVAL == INTERVAL - 1
    moved = controller["probability"] + jnp.sign(signs / INTERVAL - target) * speed * INTERVAL
    return {
        "probability": jnp.where(moves, jnp.clip(moved, 0, 1), controller["probability"]),
        "signs": jnp.where(moves, 0, signs),
    }
