"""Transformers on text: decoder-only (GPT: Radford et al. 2018, 2019) and encoder-only (BERT: arXiv:1810.04805).

Tokens become vectors, positions are added to them or encoded by rotating queries and keys, blocks follow, a norm, and a
head: logits over the vocabulary at each token, or over classes at the first token, [CLS]. A decoder is causal: the
vector at t never depends on later tokens. Its text can be generated token by token, with the keys and values of earlier
tokens in a `Cache`.

Deviation from BERT: pre-norm, and no layer between the encoder and the head. Parameters are stacked over layers as in
models/vit.py.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers import rope
from gormley_vision.layers.blocks import Cache, Initial, Norm, Rotation, make_norm, stack_blocks
from gormley_vision.layers.naming import named
from gormley_vision.layers.partition import split_by_image


class Transformer(nn.Module):
    """Tokens int [B, T] -> logits in at least float32, [B, T, V], or [B, Y] if there are `classes`.

    `position` is 'learned' (a table of `context` rows is added) or 'none'; `rope` is 'none', or a name in
    `layers.rope.PRESETS` for a line. `rope_scaling` 'interpolate' or 'ntk' is for a `context` longer than
    `trained_context`. With `tied`, the head is the transposed embedding, and has no bias.
    """

    vocabulary: int
    context: int
    width: int
    depth: int
    mlp: int
    heads: int
    causal: bool
    classes: int = 0
    kv_heads: int = 0  # 0: as many as heads
    position: str = "learned"
    rope: str = "none"
    rope_scaling: str = "none"
    trained_context: int = 0  # read if `rope_scaling` is not 'none'
    activation: str = "tanh"
    norm: str = "layer"
    norm_epsilon: float = 1e-5
    bias: bool = True
    qk_norm: bool = False
    parallel: bool = False
    tied: bool = True
    initial_std: float = 0.02  # 0: Xavier
    dropout: float = 0.0  # of embeddings and of each branch
    attention_dropout: float = 0.0
    scan: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        *,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
        valid: jax.Array | None = None,
        cache: Cache | None = None,
        at: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        """Return logits, and the cache with these tokens' keys and values, if one was given.

        Args:
            tokens: int [B, T].
            positions: int [B, T] of each token in its document; None for 0 ... T - 1. With a cache also where each is
              written: a token sees what is at its own and lower positions.
            segments: int [B, T], the number of each token's document; tokens see their own document only.
            valid: bool [B, T], false for padding, which no token sees.
            cache: of earlier tokens, from `empty_cache`; a decoder's only.
            at: int [B, K], the tokens whose logits [B, K, V] are wanted; None for all.
            train: turns on dropout, which uses the 'dropout' random stream.
        """
        length = tokens.shape[1]
        if positions is None:
            positions = jnp.arange(length)[None]
        embedding = self.param("token_embedding", self._initial("vocab", "embed"), (self.vocabulary, self.width))
        x = jnp.take(embedding, tokens, axis=0).astype(self.dtype)
        if self.position == "learned":
            initial = named(nn.initializers.normal(self.initial_std or 0.02), "tokens", "embed")
            table = self.param("position_embedding", initial, (self.context, self.width))
            x = x + jnp.take(table, positions, axis=0, mode="clip").astype(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(split_by_image(x))
        encoder = stack_blocks(self.depth, scan=self.scan, remat=self.remat, **self._block_options(train))
        mask = visible(segments, valid) if cache is None else cached(positions, cache)
        rates = jnp.zeros(self.depth)
        x, cache = encoder(x, rates, self._rotation(positions), mask, cache, positions)
        if at is not None:
            x = jnp.take_along_axis(x, at[:, :, None], axis=1)
        x = make_norm(self._norm, self.dtype, "norm")(x)
        return self._head(x, embedding), cache

    def empty_cache(self, batch: int, length: int) -> Cache:
        """Return a cache [L, B, S, Kv, Dh] for texts of up to `length` tokens."""
        shape = (self.depth, batch, length, self.kv_heads or self.heads, self.width // self.heads)
        return Cache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

    @property
    def _norm(self) -> Norm:
        return Norm(self.norm, self.norm_epsilon, self.bias)

    def _initial(self, *axes: str) -> Any:
        std = self.initial_std or self.width**-0.5  # tied, the head's logits then start with variance 1
        return named(nn.initializers.normal(std), *axes)

    def _head(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        if self.classes:
            kernel = named(nn.initializers.zeros, "embed", "classes")
            bias = named(nn.initializers.zeros, "classes")
            return nn.Dense(self.classes, kernel_init=kernel, bias_init=bias, name="head")(x[:, 0].astype(wide))
        if self.tied:
            kernel = embedding.T
        else:
            kernel = self.param("head", self._initial("embed", "vocab"), (self.width, self.vocabulary))
        return jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=wide)

    def _rotation(self, positions: jax.Array) -> Rotation | None:
        if self.rope == "none":
            return None
        scale = self.context / self.trained_context if self.rope_scaling != "none" else 1.0
        at = positions.astype(jnp.float32)
        if self.rope_scaling == "interpolate":
            at = rope.interpolate_positions(at, scale)
        ntk_scale = scale if self.rope_scaling == "ntk" else 1.0
        return Rotation(angles=rope.preset_angles(self.rope, self.width // self.heads, at, ntk_scale))

    def _block_options(self, train: bool) -> dict[str, Any]:
        same = "heads", "mlp", "dtype", "kv_heads", "activation", "parallel", "bias", "qk_norm", "dropout", "causal"
        return {
            **{name: getattr(self, name) for name in same},
            "norm": self._norm,
            "initial": Initial(self.initial_std, self.initial_std / math.sqrt(2 * self.depth)),
            "qkv_bias": self.bias,
            "attention_dropout": self.attention_dropout,
            "pairing": rope.PRESETS[self.rope].pairing if self.rope != "none" else "interleaved",
            "train": train,
        }


def visible(segments: jax.Array | None, valid: jax.Array | None) -> jax.Array | None:
    """Return which keys a query sees, bool [B, 1, 1 or T, T], before causality; None for all."""
    mask = None if valid is None else valid[:, None, None, :]
    if segments is None:
        return mask
    same = (segments[:, :, None] == segments[:, None, :])[:, None]
    return same if mask is None else same & mask


def cached(positions: jax.Array, cache: Cache) -> jax.Array:
    """Return which entries of a cache each query at `positions` [B, T] sees, bool [B, 1, T, S]: itself and earlier."""
    return (jnp.arange(cache.keys.shape[2])[None, None] <= positions[:, :, None])[:, None]
