"""Transformer blocks: attention and MLP around a residual stream, pre-norm or parallel.

Pre-norm (Dosovitskiy et al. 2020, arXiv:2010.11929, equations 2 and 3): x + MSA(LN(x)), then x + MLP(LN(x)).
Parallel (Dehghani et al. 2023, ViT-22B, arXiv:2302.05442, section 2): y = LN(x), x + MLP(y) + MSA(y).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gormley_vision.layers import rope
from gormley_vision.layers.attention import attend, attention_weights
from gormley_vision.layers.naming import named
from gormley_vision.layers.partition import split_by_image

xavier = nn.initializers.xavier_uniform()
# Each of Q, K, V is initialised as a matrix [D, K*Dh].
_xavier_qkv = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 3), batch_axis=(2,))
_xavier_out = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=(0, 1), out_axis=2)
GELU: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": partial(jax.nn.gelu, approximate=True),  # flax's default, used by Google's weights
    "erf": partial(jax.nn.gelu, approximate=False),  # used by timm and Hugging Face
}


SAVED = "saved"  # the name of what a layer's backward pass may keep, where it computes the rest again
save_named = jax.checkpoint_policies.save_only_these_names(SAVED)


def saved(x: jax.Array) -> jax.Array:
    """Return [B, N, ...], named `SAVED`: queries, keys, values, attention's result, the MLP's input to its GELU."""
    # Flat, since XLA would store a stack [L, B, N, K, Dh] in another layout than the products need.
    return checkpoint_name(x.reshape(*x.shape[:2], -1), SAVED).reshape(x.shape)


class MixedRope(NamedTuple):
    """RoPE with frequencies learned by each layer: base of their initial values, and the NTK rule's (x, y) scale."""

    base: float
    ntk_scale: tuple[float, float] = (1.0, 1.0)


class Rotation(NamedTuple):
    """The rotation of queries and keys: `angles` [N, Dh/2], or `positions` [N, 2] from which layers compute angles."""

    angles: jax.Array | None = None
    positions: jax.Array | None = None


def make_norm(kind: str, dtype: Any, name: str | None = None, axis: str = "embed") -> nn.Module:
    """Return LayerNorm, or for 'rms' ViT-22B's norm without bias and centering; eps 1e-6, statistics in float32."""
    scale = named(nn.initializers.ones, axis)
    if kind == "rms":
        return nn.RMSNorm(epsilon=1e-6, dtype=dtype, scale_init=scale, name=name)
    bias = named(nn.initializers.zeros, axis)
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, scale_init=scale, bias_init=bias, name=name)


class Attention(nn.Module):
    """Multi-head self-attention [B, N, D] -> [B, N, D].

    Parameters: `qkv` [D, K, 3, Dh] (heads first, so that they split over devices) and `out` [K, Dh, D] kernels; with
    `qk_norm` a LayerNorm of queries and one of keys, over each head's channels, before the rotation. With `mixed_rope`
    the rotation has positions, and angles are computed from the layer's own `rope_frequencies`.
    """

    heads: int
    dtype: Any = jnp.float32
    qkv_bias: bool = True
    qk_norm: bool = False
    norm: str = "layer"
    pairing: rope.Pairing = "interleaved"
    mixed_rope: MixedRope | None = None
    causal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, rotation: Rotation | None = None, mask: jax.Array | None = None) -> jax.Array:
        """Attend; with `mutable=['maps']` also records A as 'maps/weights' [B, K, N, N]."""
        width = x.shape[-1]
        head_dim = width // self.heads
        shape, names = (self.heads, 3, head_dim), ("embed", "heads", "qkv", "head_dim")
        project = Projection(shape, names, _xavier_qkv, self.qkv_bias, self.dtype, separate=1, name="qkv")
        query, key, value = map(saved, project(x))
        if self.qk_norm:
            query = make_norm(self.norm, self.dtype, "query_norm", axis="head_dim")(query)
            key = make_norm(self.norm, self.dtype, "key_norm", axis="head_dim")(key)
        if rotation is not None:
            if self.mixed_rope is not None:
                assert rotation.positions is not None
                initial = partial(rope.mixed_frequencies, base=self.mixed_rope.base)
                initial = named(initial, "coordinates", "heads", "frequencies")
                frequencies = self.param("rope_frequencies", initial, self.heads, head_dim)
                if self.mixed_rope.ntk_scale != (1.0, 1.0):
                    frequencies = rope.ntk_mixed_frequencies(frequencies, self.mixed_rope.ntk_scale)
                angles = rope.mixed_angles(rotation.positions, frequencies)
            else:
                assert rotation.angles is not None
                angles = rotation.angles[..., None, :]
            query, key = (rope.apply_rope(y, angles, self.pairing, token_axis=-3) for y in (query, key))
        if self.is_mutable_collection("maps") and not self.is_initializing():
            self.sow("maps", "weights", attention_weights(query, key, mask=mask, causal=self.causal))
        mixed = saved(attend(query, key, value, mask=mask, causal=self.causal))
        back = ("heads", "head_dim", "embed")
        return Projection((width,), back, _xavier_out, True, self.dtype, contracts=2, name="out")(mixed)


class Projection(nn.Module):
    """x [B, N, (last `contracts` axes)] -> [B, N, *shape] as one matrix product; kernel [*contracted, *shape].

    `axes` names the kernel's axes, the last of which are the bias'. With `separate`, the number of an axis of `shape`,
    returns one array for each index of that axis, each by a product of its own: slices of the result would have to be
    copied, and their gradients padded and added.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    kernel_init: Callable
    use_bias: bool
    dtype: Any
    contracts: int = 1
    separate: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        """Project."""
        inner = x.shape[-self.contracts :]
        kernel = self.param("kernel", named(self.kernel_init, *self.axes), (*inner, *self.shape))
        bias = None
        if self.use_bias:
            bias = self.param("bias", named(nn.initializers.zeros, *self.axes[self.contracts :]), self.shape)
        if self.separate is None:
            return self._product(x, kernel, bias)
        return tuple(
            self._product(
                x,
                jax.lax.index_in_dim(kernel, part, self.contracts + self.separate, keepdims=False),
                None if bias is None else jax.lax.index_in_dim(bias, part, self.separate, keepdims=False),
            )
            for part in range(self.shape[self.separate])
        )

    def _product(self, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        lead, shape = x.shape[: -self.contracts], kernel.shape[self.contracts :]
        rows = math.prod(kernel.shape[: self.contracts])
        y = x.astype(self.dtype).reshape(*lead, rows) @ kernel.astype(self.dtype).reshape(rows, -1)
        y = split_by_image(y)
        if bias is not None:
            y = y + bias.astype(self.dtype).reshape((1,) * len(lead) + (-1,))
        return y.reshape(*lead, *shape)


class MLP(nn.Module):
    """Dense to `mlp` channels, GELU, Dense back (arXiv:2010.11929, appendix B: Xavier kernels, biases N(0, 1e-6))."""

    mlp: int
    dtype: Any = jnp.float32
    gelu: str = "tanh"
    dropout: float = 0.0
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, N, D] to [B, N, D]."""

        def dense(x: jax.Array, features: int, name: str, axes: tuple[str, str]) -> jax.Array:
            kernel, bias = named(xavier, *axes), named(nn.initializers.normal(1e-6), axes[1])
            layer = nn.Dense(features, dtype=self.dtype, kernel_init=kernel, bias_init=bias, name=name)
            return split_by_image(layer(x))

        hidden = GELU[self.gelu](saved(dense(x, self.mlp, "in", ("embed", "mlp"))))
        hidden = nn.Dropout(self.dropout, deterministic=not self.train)(hidden)
        return dense(hidden, x.shape[-1], "out", ("mlp", "embed"))


class Block(nn.Module):
    """One layer [B, N, D] -> [B, N, D]; dropout on both branches, then LayerScale, then stochastic depth.

    LayerScale (Touvron et al. 2021, arXiv:2103.17239): a learned factor for each channel, `layer_scale` at first, 0 for
    none. Stochastic depth (Huang et al. 2016, arXiv:1603.09382): an image's branch is dropped with probability
    `drop_rate` (an array, so that scanned layers may differ), and divided by 1 - `drop_rate` otherwise.
    """

    heads: int
    mlp: int
    dtype: Any = jnp.float32
    gelu: str = "tanh"
    norm: str = "layer"
    parallel: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    layer_scale: float = 0.0
    dropout: float = 0.0
    stochastic_depth: bool = False
    pairing: rope.Pairing = "interleaved"
    mixed_rope: MixedRope | None = None
    causal: bool = False
    train: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, drop_rate: jax.Array, rotation: Rotation | None = None, mask: jax.Array | None = None
    ) -> tuple[jax.Array, None]:
        """Return the new residual stream, and None: the scan over layers has nothing to stack."""
        attention = Attention(
            heads=self.heads,
            dtype=self.dtype,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            norm=self.norm,
            pairing=self.pairing,
            mixed_rope=self.mixed_rope,
            causal=self.causal,
            name="attention",
        )
        mlp = MLP(mlp=self.mlp, dtype=self.dtype, gelu=self.gelu, dropout=self.dropout, train=self.train, name="mlp")
        y = make_norm(self.norm, self.dtype, "norm_1")(x)
        if self.parallel:
            return x + self._branch("1", attention(y, rotation, mask) + mlp(y), drop_rate), None
        x = x + self._branch("1", attention(y, rotation, mask), drop_rate)
        y = make_norm(self.norm, self.dtype, "norm_2")(x)
        return x + self._branch("2", mlp(y), drop_rate), None

    def _branch(self, name: str, y: jax.Array, drop_rate: jax.Array) -> jax.Array:
        y = nn.Dropout(self.dropout, deterministic=not self.train)(y)
        if self.layer_scale:
            initial = named(nn.initializers.constant(self.layer_scale), "embed")
            scale = self.param(f"layer_scale_{name}", initial, y.shape[-1:])
            y = y * scale.astype(y.dtype)[None, None]
        if self.stochastic_depth and self.train:
            keep = 1 - drop_rate
            kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (y.shape[0], 1, 1))
            y = jnp.where(kept, y / jnp.where(keep > 0, keep, 1).astype(y.dtype), 0)  # 0/0 would make gradients NaN
        return y
