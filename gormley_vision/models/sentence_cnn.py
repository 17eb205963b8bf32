"""Convolutions over a sentence: Kim 2014 (arXiv:1408.5882), the network without pre-trained vectors (CNN-rand).

Embeddings, one convolution for each size of window with a ReLU and the maximum over the sentence, dropout, and a
linear head. Deviations: the head's columns have no largest norm, and what is behind the sentence's end is never seen.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.naming import named


def _from_minus_a_quarter(*arguments: Any) -> jax.Array:
    """Draw uniformly from -0.25 to 0.25, as the paper does."""
    return nn.initializers.uniform(0.5)(*arguments) - 0.25


class SentenceCNN(nn.Module):
    """Tokens int [B, T] to logits [B, Y] in at least float32; called as `models.transformer.Transformer` is."""

    vocabulary: int
    context: int
    classes: int
    width: int = 300  # channels of an embedding
    maps: int = 100  # for each width of window
    windows: tuple[int, ...] = (3, 4, 5)  # tokens
    dropout: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: jax.Array, *, valid: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, None]:
        """Return logits, and no cache.

        Args:
            tokens: int [B, T].
            valid: bool [B, T], false for padding; None if there is none.
            train: turns on dropout, which uses the 'dropout' random stream.
        """
        if valid is None:
            valid = jnp.ones(tokens.shape, bool)
        initial = named(_from_minus_a_quarter, "vocab", "embed")
        embedding = self.param("token_embedding", initial, (self.vocabulary, self.width))
        x = jnp.where(valid[..., None], jnp.take(embedding, tokens, axis=0), 0).astype(self.dtype)
        found = []
        for size in self.windows:  # also those that begin before the sentence, or end after it
            around = [(size - 1, size - 1)]
            kernel = named(nn.initializers.xavier_uniform(), "conv_width", "conv_in", "conv_out")
            bias = named(nn.initializers.zeros, "features")
            convolution = nn.Conv(
                self.maps, (size,), padding=around, kernel_init=kernel, bias_init=bias, dtype=self.dtype
            )
            seen = nn.max_pool(valid[..., None].astype(self.dtype), (size,), padding=around)
            found.append(jnp.max(nn.relu(convolution(x)) * seen, axis=1))  # ReLU's outputs are at least 0
        x = nn.Dropout(self.dropout, deterministic=not train)(jnp.concatenate(found, axis=-1))
        kernel = named(nn.initializers.zeros, "map", "classes")
        head = nn.Dense(
            self.classes, kernel_init=kernel, bias_init=named(nn.initializers.zeros, "classes"), name="head"
        )
        return head(x.astype(jnp.promote_types(x.dtype, jnp.float32))), None
