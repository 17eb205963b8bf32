"""Vision Transformer (Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", arXiv:2010.11929) and its variants.

An image is cut into patches, a linear map makes each patch a token, positions are added to the tokens or encoded by
rotating queries and keys, an encoder-only transformer follows, and a head predicts the class from [CLS], from the mean
of the patches, or from attention pooling. Tokens are in the order [CLS], registers, patches row by row.

Deviations from the paper, each an option: positions other than learned 1-D ones (sincos2d: Chen et al. 2021,
arXiv:2104.02057; RoPE: docs/rope.md), pooling by mean or attention (Zhai et al. 2021, arXiv:2106.04560), registers
(Darcet et al. 2023, arXiv:2309.16588), and ViT-22B's parallel block, QK-norm and norms (arXiv:2302.05442).

The parameters of all layers are stacked, `encoder/...` [L, ...], whether layers are scanned (compile time of one layer)
or unrolled (faster on a CPU), and each layer's random keys depend on its index: both give the same values except for
rounding, and the same layout of checkpoints.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers import rope
from gormley_vision.layers.attention import attend
from gormley_vision.layers.blocks import MLP, MixedRope, Norm, Projection, Rotation, make_norm, stack_blocks, xavier
from gormley_vision.layers.naming import named
from gormley_vision.layers.positions import sincos_2d


class Size(NamedTuple):
    """The dimensions of a variant: D, L, F, K."""

    width: int
    depth: int
    mlp: int
    heads: int


# Paper tables: B, L, H (arXiv:2010.11929, table 1), Ti, S (DeiT, arXiv:2012.12877), g, G (arXiv:2106.04560, table 2), e
# (PaLI, arXiv:2209.06794), So400m (arXiv:2305.13035), 22B (arXiv:2302.05442); mu and M as in big_vision.
SIZES = {
    "mu": Size(32, 1, 128, 2),
    "Ti": Size(192, 12, 768, 3),
    "S": Size(384, 12, 1536, 6),
    "M": Size(512, 12, 2048, 8),
    "B": Size(768, 12, 3072, 12),
    "L": Size(1024, 24, 4096, 16),
    "So400m": Size(1152, 27, 4304, 16),
    "H": Size(1280, 32, 5120, 16),
    "g": Size(1408, 40, 6144, 16),
    "G": Size(1664, 48, 8192, 16),
    "e": Size(1792, 56, 15360, 16),
    "22B": Size(6144, 48, 24576, 48),
}


class ViT(nn.Module):
    """Images [B, H, W, C] in [-1, 1] -> logits [B, Y] in at least float32; pooled features [B, D] if `classes` is 0.

    `position` is added to the tokens: 'learned' (1-D, [CLS] included), 'sincos2d' or 'none'. `rope` is 'none' or a name
    in `layers.rope.PRESETS`; presets on a line number patches row by row. Class and register tokens are not rotated.
    For images larger than in training, set `rope_scaling` to 'interpolate' or 'ntk', and `trained_grid`.
    """

    width: int
    depth: int
    mlp: int
    heads: int
    patch_size: int
    classes: int
    position: str = "learned"
    rope: str = "none"
    pooling: str = "cls"
    registers: int = 0
    representation: int = 0  # width of a tanh layer before the head, 0 for none
    head_bias: float = 0.0
    gelu: str = "tanh"
    norm: str = "layer"
    parallel: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    layer_scale: float = 0.0
    dropout: float = 0.0
    stochastic_depth: float = 0.0  # of the last layer; grows linearly from 0 at the first
    scan: bool = False
    remat: bool = False
    rope_scaling: str = "none"
    trained_grid: int = 0  # patches along a side in training; read if `rope_scaling` is not 'none'
    fused: bool = True  # attention by kernels, which have no second derivative
    dtype: Any = jnp.float32

    @property
    def num_prefix_tokens(self) -> int:
        """The number of tokens before the patches."""
        return (self.pooling == "cls") + self.registers

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        *,
        hidden: tuple[jax.Array, jax.Array] | None = None,
        kept: jax.Array | None = None,
        as_tokens: bool = False,
    ) -> jax.Array:
        """Return logits; `train` turns on dropout and stochastic depth, which use the 'dropout' random stream.

        For masked patches: of `hidden` = (bool [B, N], token [D]) the token takes the place of those patches; `kept`
        int [B, n] numbers the patches that are read, all others are left out. `as_tokens` returns the normed tokens
        [B, prefix + n, D] in place of logits.
        """
        tokens, grid = self._embed(images, hidden)
        rotation = self.rotation(grid)
        if kept is not None:
            tokens = jax.vmap(jnp.take, (0, 0, None))(tokens, self._with_prefix(kept), 0)
            rotation = self._rotation_of(rotation, kept)
        tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)
        rates = jnp.linspace(0, self.stochastic_depth, self.depth)
        encoder = stack_blocks(self.depth, scan=self.scan, remat=self.remat, **self.block_options(grid, train))
        tokens, _ = encoder(tokens, rates, rotation, None, None, None)
        tokens = make_norm(Norm(self.norm), self.dtype, "norm")(tokens)
        if as_tokens:
            return tokens
        x, axis = self._pool(tokens), "embed"
        if self.representation:
            kernel = named(nn.initializers.lecun_normal(), "embed", "representation")
            axis, bias = "representation", named(nn.initializers.zeros, "representation")
            layer = nn.Dense(self.representation, dtype=self.dtype, kernel_init=kernel, bias_init=bias, name=axis)
            x = nn.tanh(layer(x))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if not self.classes:
            return x
        kernel = named(nn.initializers.zeros, axis, "classes")
        bias = named(nn.initializers.constant(self.head_bias), "classes")
        return nn.Dense(self.classes, kernel_init=kernel, bias_init=bias, name="head")(x)

    def _with_prefix(self, kept: jax.Array) -> jax.Array:
        """Return the numbers of the tokens [B, prefix + n] of class, registers and the kept patches."""
        prefix = self.num_prefix_tokens
        first = jnp.broadcast_to(jnp.arange(prefix)[None], (kept.shape[0], prefix))
        return jnp.concatenate([first, kept + prefix], axis=1)

    def _rotation_of(self, rotation: Rotation | None, kept: jax.Array) -> Rotation | None:
        """Return the rotation [B, prefix + n, ...] of the tokens that are left."""
        if rotation is None:
            return None
        tokens = self._with_prefix(kept)
        return Rotation(*(None if x is None else jnp.take(x, tokens, axis=0) for x in rotation))

    def _embed(
        self, images: jax.Array, hidden: tuple[jax.Array, jax.Array] | None = None
    ) -> tuple[jax.Array, tuple[int, int]]:
        """Return tokens [B, N, D] with positions added, and the grid (height, width) in patches."""
        batch, height, width, channels = images.shape
        size = self.patch_size
        if height % size or width % size:
            raise ValueError(f"images of {height}x{width} pixels do not divide into {size}x{size} patches")
        grid = height // size, width // size
        patches = to_patches(images.astype(self.dtype), size)
        kernel_init = named(_patch_kernel, "patch_height", "patch_width", "patch_in", "patch_out")
        bias_init = named(nn.initializers.zeros, "patch_out")
        kernel = self.param("patch_embedding", kernel_init, (size, size, channels, self.width)).astype(self.dtype)
        bias = self.param("patch_bias", bias_init, (self.width,)).astype(self.dtype)
        tokens = patches @ kernel.reshape(-1, self.width) + bias[None, None]
        if hidden is not None:
            tokens = jnp.where(hidden[0][:, :, None], hidden[1].astype(self.dtype)[None, None], tokens)
        if self.position == "sincos2d":
            tokens = tokens + sincos_2d(*grid, self.width).astype(self.dtype)[None]
        inits = nn.initializers.zeros, nn.initializers.normal(0.02)
        token_inits = [named(initial, "one", "tokens", "embed") for initial in inits]
        if self.pooling == "cls":
            cls = self.param("class_token", token_inits[0], (1, 1, self.width)).astype(self.dtype)
            tokens = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.width)), tokens], axis=1)
        if self.position == "learned":
            shape = (1, tokens.shape[1], self.width)
            tokens = tokens + self.param("position_embedding", token_inits[1], shape).astype(self.dtype)
        if self.registers:
            registers = self.param("registers", token_inits[1], (1, self.registers, self.width)).astype(self.dtype)
            registers = jnp.broadcast_to(registers, (batch, self.registers, self.width))
            first = self.pooling == "cls"
            tokens = jnp.concatenate([tokens[:, :first], registers, tokens[:, first:]], axis=1)
        return tokens, grid

    def _scale(self, grid: tuple[int, int]) -> tuple[float, float]:
        """Return the ratio of the grid (height, width) to that of training, as (x, y)."""
        side = self.trained_grid if self.rope_scaling != "none" else 0
        return (grid[1] / side, grid[0] / side) if side else (1.0, 1.0)

    def rotation(self, grid: tuple[int, int]) -> Rotation | None:
        """Return the rotation of queries and keys of all layers; None without RoPE."""
        if self.rope == "none":
            return None
        preset, scale = rope.PRESETS[self.rope], self._scale(grid)
        if preset.kind == "line":
            positions, scale = jnp.arange(grid[0] * grid[1], dtype=jnp.float32), (scale[0] * scale[1],) * 2
        else:
            positions = rope.grid_positions(*grid, preset.coordinates)
        if self.rope_scaling == "interpolate" and preset.coordinates == "index":
            positions = rope.interpolate_positions(positions, scale[0] if preset.kind == "line" else scale)
        if preset.kind == "mixed":
            # A token at the origin is not rotated, whatever the frequencies.
            return Rotation(positions=jnp.pad(positions, ((self.num_prefix_tokens, 0), (0, 0))))
        ntk_scale = scale if self.rope_scaling == "ntk" else 1.0
        angles = rope.preset_angles(self.rope, self.width // self.heads, positions, ntk_scale)
        return Rotation(angles=rope.leave_unrotated(angles, first=self.num_prefix_tokens))

    def block_options(self, grid: tuple[int, int], train: bool = False) -> dict[str, Any]:
        """Return the arguments of each layer's `Block`, for a grid of patches (height, width)."""
        preset = rope.PRESETS.get(self.rope)
        mixed = None
        if preset is not None and preset.kind == "mixed":
            mixed = MixedRope(preset.base, self._scale(grid) if self.rope_scaling == "ntk" else (1.0, 1.0))
        same = ("heads", "mlp", "dtype", "parallel", "qkv_bias", "qk_norm", "layer_scale", "dropout", "fused")
        return {
            **{name: getattr(self, name) for name in same},
            "activation": self.gelu,
            "norm": Norm(self.norm),
            "mlp_dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth > 0,
            "pairing": preset.pairing if preset else "interleaved",
            "mixed_rope": mixed,
            "train": train,
        }

    def _pool(self, tokens: jax.Array) -> jax.Array:
        """Pool [B, N, D] to [B, D]."""
        if self.pooling == "cls":
            return tokens[:, 0]
        if self.pooling == "gap":
            return jnp.mean(tokens[:, self.num_prefix_tokens :], axis=1)
        return AttentionPooling(self.heads, self.mlp, self.dtype, self.gelu, self.norm, name="pooling_head")(tokens)


class AttentionPooling(nn.Module):
    """MAP head (Zhai et al. 2021, arXiv:2106.04560): a learned probe attends to all tokens, then an MLP."""

    heads: int
    mlp: int
    dtype: Any
    gelu: str
    norm: str

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Pool [B, N, D] to [B, D]."""
        batch, _, width = tokens.shape
        head = (self.heads, width // self.heads)
        probe = self.param("probe", named(xavier, "one", "one", "embed"), (1, 1, width)).astype(self.dtype)
        probe = jnp.broadcast_to(probe, (batch, 1, width))
        axes, kernel_init = ("embed", "heads", "head_dim"), nn.initializers.xavier_uniform(in_axis=0, out_axis=(1, 2))
        query, key, value = (
            Projection(head, axes, kernel_init, True, self.dtype, name=name)(x)
            for name, x in (("query", probe), ("key", tokens), ("value", tokens))
        )
        axes, out_init = ("heads", "head_dim", "embed"), nn.initializers.xavier_uniform(in_axis=(0, 1), out_axis=2)
        x = Projection((width,), axes, out_init, True, self.dtype, contracts=2, name="out")(attend(query, key, value))
        y = make_norm(Norm(self.norm), self.dtype, "norm")(x)
        return (x + MLP(self.mlp, self.dtype, self.gelu, name="mlp")(y))[:, 0]


def to_patches(images: jax.Array, size: int) -> jax.Array:
    """Reshape [B, H, W, C] to [B, H/P * W/P, P * P * C], row by row; pixels in a patch row by row, channels last."""
    batch, height, width, channels = images.shape
    split = images.reshape(batch, height // size, size, width // size, size, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(batch, (height // size) * (width // size), -1)


def _patch_kernel(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
    return nn.initializers.lecun_normal(in_axis=(0, 1, 2), out_axis=3)(key, shape, dtype)
