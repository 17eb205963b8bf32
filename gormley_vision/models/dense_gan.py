"""Fully connected players: the nets of Goodfellow et al. 2014 (arXiv:1406.2661), as released, and for vectors.

The generator has ReLU layers; the discriminator maxout layers (Goodfellow et al. 2013, arXiv:1302.4389) with dropout of
their inputs, or LeakyReLU layers for `pieces` = 1. Images are flattened.

Deviation from the released code (github.com/goodfeli/adversarial): the generator's last bias starts at 0, not at the
data's marginals. Its sigmoid in [0, 1] is here tanh(x / 2) in [-1, 1], which is the same function.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import (
    Initializer,
    Logits,
    at_least_float32,
    dense,
    leaky_relu,
    logit_head,
    with_one_hot,
)


class Generator(nn.Module):
    """Noise [B, Z], and labels int [B] if `classes` > 0, to [B, *shape]: images in [-1, 1], or unbounded vectors.

    `depth` hidden layers of `width` channels. Kernels start uniform in +-`initial_range`; 0: variance 2 / inputs.
    """

    shape: tuple[int, ...]
    width: int = 1200
    depth: int = 2
    initial_range: float = 0.0
    classes: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noise: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Generate, in float32 or wider."""
        del train
        initial = _initial(self.initial_range)
        x, inputs = with_one_hot(noise.astype(self.dtype), labels, self.classes), "latent"
        for _ in range(self.depth):
            x, inputs = nn.relu(dense(self.width, inputs, "mlp", dtype=self.dtype, initial=initial)(x)), "embed"
        x = dense(math.prod(self.shape), inputs, "map", dtype=self.dtype, initial=initial)(x)
        x = at_least_float32(x).reshape(-1, *self.shape)
        return jnp.tanh(x / 2) if len(self.shape) == 3 else x


class Discriminator(nn.Module):
    """Images [B, H, W, C] in [-1, 1], or vectors [B, n], and labels int [B] if `classes` > 0, to logits [B].

    `depth` layers, each the largest of `pieces` linear maps. Images are read in [0, 1], as Goodfellow's are. Dropout
    scales what it keeps by 1 / share, and also acts in the generator's update, as in the released code.
    """

    width: int = 240
    depth: int = 2
    pieces: int = 5
    input_dropout: float = 0.0
    dropout: float = 0.0
    initial_range: float = 0.0
    classes: int = 0
    conditioning: str = "concatenation"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array | None = None, *, train: bool) -> Logits:
        """Return logits, in float32 or wider."""
        x = images.reshape(len(images), -1).astype(self.dtype)
        x = (x + 1) / 2 if images.ndim == 4 else x
        x = with_one_hot(x, labels, self.classes if self.conditioning == "concatenation" else 0)
        initial = _initial(self.initial_range)
        rate, inputs = self.input_dropout, "channels"
        for _ in range(self.depth):
            x = nn.Dropout(rate, deterministic=not train)(x)
            x = dense(self.width * self.pieces, inputs, "mlp", dtype=self.dtype, initial=initial)(x)
            x = leaky_relu(x) if self.pieces == 1 else x.reshape(len(x), self.width, self.pieces).max(axis=-1)
            rate, inputs = self.dropout, "embed"
        x = nn.Dropout(rate, deterministic=not train)(x)
        return logit_head(
            x,
            labels,
            classes=self.classes,
            conditioning=self.conditioning,
            dtype=self.dtype,
            use_bias=True,
            initial=initial,
            label_initial=initial,
        )


def _initial(initial_range: float) -> Initializer:
    if not initial_range:
        return nn.initializers.he_normal()
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -initial_range, initial_range)
