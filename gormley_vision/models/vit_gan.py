"""Transformers as players, in pixel space, of this project's own blocks with rotary positions.

The generator makes every token from the noise by one linear map, as TransGAN does (Jiang et al. 2021, 2102.07074), runs
an encoder on them, and a linear map makes each token a patch. The discriminator is a ViT whose [CLS] makes the logit
(ViTGAN: Lee et al. 2021, arXiv:2107.04589, section 3.1). Queries and keys of both are rotated by their patch's row and
column (docs/rope.md), so that no positions are learned.

Deviations from ViTGAN: noise makes the tokens rather than modulating LayerNorm; dot-product attention rather than L2;
patches do not overlap; no implicit neural representation at the end.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.blocks import Norm, make_norm, stack_blocks, xavier
from gormley_vision.layers.gan import Logits, at_least_float32, dense, logit_head, with_label_maps, with_one_hot
from gormley_vision.models.vit import ViT

MLP_RATIO = 4


class Generator(nn.Module):
    """Noise [B, Z], and labels int [B] if `classes` > 0, to images [B, *shape] in [-1, 1], `shape` (S, S, C)."""

    shape: tuple[int, int, int]
    width: int = 192
    depth: int = 6
    heads: int = 3
    patch_size: int = 4
    rope: str = "naver_axial"
    classes: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noise: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Generate images, in float32 or wider."""
        size, side, channels = self.patch_size, self.shape[0] // self.patch_size, self.shape[-1]
        x = with_one_hot(noise.astype(self.dtype), labels, self.classes)
        x = dense(side * side * self.width, "latent", "map", dtype=self.dtype, initial=xavier, name="tokens")(x)
        x = x.reshape(-1, side * side, self.width)
        body = _vit(self, pooling="gap")  # for its options alone: it has no layer of its own here
        options = body.block_options((side, side), train)
        encoder = stack_blocks(self.depth, scan=False, remat=False, **options)
        x, _ = encoder(x, jnp.zeros(self.depth), body.rotation((side, side)), None, None, None)
        x = make_norm(Norm(), self.dtype, "norm")(x)
        x = dense(size * size * channels, "embed", "channels", dtype=self.dtype, initial=xavier, name="to_patches")(x)
        x = x.reshape(-1, side, side, size, size, channels).transpose(0, 1, 3, 2, 4, 5)
        return jnp.tanh(at_least_float32(x.reshape(-1, *self.shape)))


class Discriminator(nn.Module):
    """Images [B, S, S, C] in [-1, 1], and labels int [B] if `classes` > 0, to logits [B]; see `logit_head`."""

    width: int = 192
    depth: int = 6
    heads: int = 3
    patch_size: int = 4
    rope: str = "naver_axial"
    classes: int = 0
    conditioning: str = "concatenation"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array | None = None, *, train: bool) -> Logits:
        """Return logits, in float32 or wider."""
        maps = self.classes if self.conditioning == "concatenation" else 0
        features = _vit(self, pooling="cls", name="vit")(with_label_maps(images, labels, maps), train)
        return logit_head(
            features,
            labels,
            classes=self.classes,
            conditioning=self.conditioning,
            dtype=self.dtype,
            use_bias=True,
            initial=xavier,
            label_initial=xavier,
        )


def _vit(player: Any, pooling: str, name: str | None = None) -> ViT:
    return ViT(
        width=player.width,
        depth=player.depth,
        mlp=MLP_RATIO * player.width,
        heads=player.heads,
        patch_size=player.patch_size,
        classes=0,
        position="none",
        rope=player.rope,
        pooling=pooling,
        fused=False,  # penalties take a second derivative
        dtype=player.dtype,
        name=name,
    )
