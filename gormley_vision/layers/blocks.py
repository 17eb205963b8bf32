"""Transformer blocks: attention and MLP around a residual stream, pre-norm or parallel.

Pre-norm (Dosovitskiy et al. 2020, arXiv:2010.11929, equations 2 and 3): x + MSA(LN(x)), then x + MLP(LN(x)).
Parallel (Dehghani et al. 2023, ViT-22B, arXiv:2302.05442, section 2): y = LN(x), x + MLP(y) + MSA(y).

The same block makes encoders and decoders, of images and of text. To generate token by token, it reads and writes a
`Cache` of the keys and values of the tokens before.
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
from gormley_vision.layers.partition import mesh_platform, split_by_image
from gormley_vision.layers.product import product

xavier = nn.initializers.xavier_uniform()
# Each of Q, K, V is initialised as a matrix [D, K*Dh].
_xavier_qkv = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 3), batch_axis=(2,))
_xavier_out = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=(0, 1), out_axis=2)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": partial(jax.nn.gelu, approximate=True),  # flax's default, used by Google's weights
    "erf": partial(jax.nn.gelu, approximate=False),  # used by timm and Hugging Face
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),  # So et al. 2021 (Primer, arXiv:2109.08668)
}
# Shazeer 2020 (arXiv:2002.05202), equation 6: the activation of one product gates another.
GATES: dict[str, Callable[[jax.Array], jax.Array]] = {"swiglu": jax.nn.silu, "geglu": ACTIVATIONS["tanh"]}


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


class Cache(NamedTuple):
    """Keys and values [B, S, Kv, Dh] of the tokens at positions 0 ... S - 1; of all layers, [L, B, S, Kv, Dh]."""

    keys: jax.Array
    values: jax.Array

    def write(self, keys: jax.Array, values: jax.Array, positions: jax.Array) -> "Cache":
        """Return the cache with keys and values [B, T, Kv, Dh] at `positions` [B, T]."""
        rows = jnp.arange(positions.shape[0])[:, None]
        return Cache(self.keys.at[rows, positions].set(keys), self.values.at[rows, positions].set(values))


class Norm(NamedTuple):
    """LayerNorm, or for 'rms' RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), as ViT-22B has it without bias."""

    kind: str = "layer"
    epsilon: float = 1e-6
    use_bias: bool = True


def make_norm(norm: Norm, dtype: Any, name: str | None = None, axis: str = "embed") -> nn.Module:
    """Return the module; its statistics are in float32."""
    scale = named(nn.initializers.ones, axis)
    if norm.kind == "rms":
        return nn.RMSNorm(epsilon=norm.epsilon, dtype=dtype, scale_init=scale, name=name)
    bias = named(nn.initializers.zeros, axis)
    return nn.LayerNorm(
        epsilon=norm.epsilon, use_bias=norm.use_bias, dtype=dtype, scale_init=scale, bias_init=bias, name=name
    )


class Initial(NamedTuple):
    """Standard deviations of kernels at first, and of those that write to the residual stream; 0 for Xavier's.

    GPT-2 (Radford et al. 2019, section 2.3): 0.02, and 0.02 / sqrt(2 L).
    """

    std: float = 0.0
    residual_std: float = 0.0

    def inside(self, xavier: Callable) -> Callable:
        """Return the initialiser of a kernel that reads the residual stream."""
        return nn.initializers.normal(self.std) if self.std else xavier

    def back(self, xavier: Callable) -> Callable:
        """Return the initialiser of a kernel that writes to it."""
        return nn.initializers.normal(self.residual_std) if self.residual_std else xavier


class Attention(nn.Module):
    """Multi-head self-attention [B, N, D] -> [B, N, D].

    Parameters: `qkv` [D, K, 3, Dh] (heads first, so that they split over devices) and `out` [K, Dh, D] kernels. With
    `kv_heads` fewer than `heads` (0: as many), `query` [D, K, 1, Dh] and `key_value` [D, Kv, 2, Dh] in place of `qkv`.
    With `qk_norm` a norm of queries and one of keys, over each head's channels, before the rotation. With `mixed_rope`
    the rotation has positions, and angles are computed from the layer's own `rope_frequencies`.
    """

    heads: int
    dtype: Any = jnp.float32
    kv_heads: int = 0
    qkv_bias: bool = True
    bias: bool = True
    qk_norm: bool = False
    norm: Norm = Norm()
    initial: Initial = Initial()
    pairing: rope.Pairing = "interleaved"
    mixed_rope: MixedRope | None = None
    causal: bool = False
    dropout: float = 0.0  # of the weights A
    fused: bool = True  # kernels, which have no second derivative
    train: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rotation: Rotation | None = None,
        mask: jax.Array | None = None,
        cache: Cache | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Attend; with `mutable=['maps']` also records A as 'maps/weights' [B, K, N, N].

        With a cache, keys and values are written to it at `positions` [B, N], queries attend to all of it where `mask`
        [B, 1, N, S] allows, and it is returned.
        """
        query, key, value = map(saved, self._project(x))
        if self.qk_norm:
            query = make_norm(self.norm, self.dtype, "query_norm", axis="head_dim")(query)
            key = make_norm(self.norm, self.dtype, "key_norm", axis="head_dim")(key)
        if rotation is not None:
            angles = self._angles(rotation, query.shape[-1])
            query, key = (rope.apply_rope(y, angles, self.pairing, token_axis=-3) for y in (query, key))
        causal = self.causal and cache is None
        if cache is not None:
            assert positions is not None
            cache = cache.write(key, value, positions)
            key, value = cache
        if self.is_mutable_collection("maps") and not self.is_initializing():
            self.sow("maps", "weights", attention_weights(query, key, mask=mask, causal=causal))
        drop = nn.Dropout(self.dropout, deterministic=False) if self.dropout and self.train else None
        mixed = saved(attend(query, key, value, mask=mask, causal=causal, drop=drop, fused=self.fused))
        back, shape = ("heads", "head_dim", "embed"), (x.shape[-1],)
        out = Projection(shape, back, self.initial.back(_xavier_out), self.bias, self.dtype, contracts=2, name="out")
        return out(mixed), cache

    def _project(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Return queries [B, N, K, Dh], keys and values [B, N, Kv, Dh]."""
        width = x.shape[-1]
        head_dim = width // self.heads

        def project(name: str, heads: int, parts: int, axis: str = "heads") -> tuple[jax.Array, ...]:
            shape, axes = (heads, parts, head_dim), ("embed", axis, "qkv", "head_dim")
            initial = self.initial.inside(_xavier_qkv)
            return Projection(shape, axes, initial, self.qkv_bias, self.dtype, separate=1, name=name)(x)

        if self.kv_heads in (0, self.heads):
            return project("qkv", self.heads, 3)
        return (*project("query", self.heads, 1), *project("key_value", self.kv_heads, 2, "kv_heads"))

    def _angles(self, rotation: Rotation, head_dim: int) -> jax.Array:
        """Return angles that broadcast to [B, N, K, Dh/2]."""
        if self.mixed_rope is None:
            assert rotation.angles is not None
            return rotation.angles[..., None, :]
        assert rotation.positions is not None
        initial = partial(rope.mixed_frequencies, base=self.mixed_rope.base)
        initial = named(initial, "coordinates", "heads", "frequencies")
        frequencies = self.param("rope_frequencies", initial, self.heads, head_dim)
        if self.mixed_rope.ntk_scale != (1.0, 1.0):
            frequencies = rope.ntk_mixed_frequencies(frequencies, self.mixed_rope.ntk_scale)
        return rope.mixed_angles(rotation.positions, frequencies)


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
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        """Project."""
        inner = x.shape[-self.contracts :]
        kernel = self.param("kernel", named(self.kernel_init, *self.axes), (*inner, *self.shape))
        bias = None
        if self.use_bias:
            bias = self.param("bias", named(self.bias_init, *self.axes[self.contracts :]), self.shape)
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
        y = product(x.astype(self.dtype).reshape(*lead, rows), kernel.astype(self.dtype).reshape(rows, -1))
        y = split_by_image(y)
        if bias is not None:
            y = y + bias.astype(self.dtype).reshape((1,) * len(lead) + (-1,))
        return y.reshape(*lead, *shape)


class MLP(nn.Module):
    """Dense to `mlp` channels, activation, Dense back.

    Biases are N(0, 1e-6) at first, as in arXiv:2010.11929, appendix B. `activation` is one of ACTIVATIONS, or of GATES:
    then a third Dense, `gate`, is activated and multiplies the first.
    """

    mlp: int
    dtype: Any = jnp.float32
    activation: str = "tanh"
    bias: bool = True
    initial: Initial = Initial()
    dropout: float = 0.0
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, N, D] to [B, N, D]."""

        def dense(x: jax.Array, features: int, name: str, axes: tuple[str, str], kernel: Callable) -> jax.Array:
            bias, channels = nn.initializers.normal(1e-6), (features,)
            return Projection(channels, axes, kernel, self.bias, self.dtype, name=name, bias_init=bias)(x)

        inside = partial(dense, x, self.mlp, axes=("embed", "mlp"), kernel=self.initial.inside(xavier))
        hidden = saved(inside("in"))
        if self.activation in GATES:
            hidden = GATES[self.activation](saved(inside("gate"))) * hidden
        else:
            hidden = ACTIVATIONS[self.activation](hidden)
        hidden = nn.Dropout(self.dropout, deterministic=not self.train)(hidden)
        return dense(hidden, x.shape[-1], "out", ("mlp", "embed"), self.initial.back(xavier))


class Block(nn.Module):
    """One layer [B, N, D] -> [B, N, D]; dropout on both branches, then LayerScale, then stochastic depth.

    LayerScale (Touvron et al. 2021, arXiv:2103.17239): a learned factor for each channel, `layer_scale` at first, 0 for
    none. Stochastic depth (Huang et al. 2016, arXiv:1603.09382): an image's branch is dropped with probability
    `drop_rate` (an array, so that scanned layers may differ), and divided by 1 - `drop_rate` otherwise.
    """

    heads: int
    mlp: int
    dtype: Any = jnp.float32
    kv_heads: int = 0
    activation: str = "tanh"
    norm: Norm = Norm()
    initial: Initial = Initial()
    parallel: bool = False
    qkv_bias: bool = True
    bias: bool = True
    qk_norm: bool = False
    layer_scale: float = 0.0
    dropout: float = 0.0
    mlp_dropout: float = 0.0  # within the MLP
    attention_dropout: float = 0.0  # of attention's weights
    fused: bool = True
    stochastic_depth: bool = False
    pairing: rope.Pairing = "interleaved"
    mixed_rope: MixedRope | None = None
    causal: bool = False
    train: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        drop_rate: jax.Array,
        rotation: Rotation | None = None,
        mask: jax.Array | None = None,
        cache: Cache | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Return the new residual stream, and the layer's cache if one was given (see `Attention`)."""
        attention = Attention(
            heads=self.heads,
            dtype=self.dtype,
            kv_heads=self.kv_heads,
            qkv_bias=self.qkv_bias,
            bias=self.bias,
            qk_norm=self.qk_norm,
            norm=self.norm,
            initial=self.initial,
            pairing=self.pairing,
            mixed_rope=self.mixed_rope,
            causal=self.causal,
            dropout=self.attention_dropout,
            fused=self.fused,
            train=self.train,
            name="attention",
        )
        mlp = MLP(
            mlp=self.mlp,
            dtype=self.dtype,
            activation=self.activation,
            bias=self.bias,
            initial=self.initial,
            dropout=self.mlp_dropout,
            train=self.train,
            name="mlp",
        )
        y = make_norm(self.norm, self.dtype, "norm_1")(x)
        mixed, cache = attention(y, rotation, mask, cache, positions)
        if self.parallel:
            return x + self._branch("1", mixed + mlp(y), drop_rate), cache
        x = x + self._branch("1", mixed, drop_rate)
        y = make_norm(self.norm, self.dtype, "norm_2")(x)
        return x + self._branch("2", mlp(y), drop_rate), cache

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


def stack_blocks(depth: int, *, scan: bool, remat: bool, name: str = "encoder", **options: Any) -> nn.Module:
    """Return `depth` blocks as one module, their parameters stacked on a first axis.

    It is called as `Block` with a drop rate and a cache for each layer, [L, ...]. Layers are scanned (compile time of
    one) or unrolled (faster on a CPU).
    """
    body = Block
    if remat or mesh_platform() == "tpu":  # a TPU would keep five times as much, in layouts it then changes
        body = nn.remat(Block, prevent_cse=not scan, policy=None if remat else save_named)
    layers = nn.scan(
        body,
        variable_axes={"params": 0, "maps": 0},
        metadata_params={nn.PARTITION_NAME: "layers"},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast, nn.broadcast, 0, nn.broadcast),
        length=depth,
        unroll=1 if scan else depth,
    )
    return layers(**options, name=name)
