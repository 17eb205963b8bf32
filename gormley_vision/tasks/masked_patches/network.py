"""A ViT that reconstructs hidden patches: SimMIM (Xie et al. 2021, arXiv:2111.09886), MAE (He et al. 2021, 2111.06377).

SimMIM: a learned token takes the place of each hidden patch, and one linear layer predicts its pixels.
MAE: the ViT reads visible patches alone, which makes it cheap; a small decoder of its own width reads them and a
learned token for each hidden patch, both with sine-cosine positions, and predicts pixels.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.blocks import Norm, Projection, make_norm, stack_blocks, xavier
from gormley_vision.layers.naming import named
from gormley_vision.layers.partition import split_by_image
from gormley_vision.layers.positions import sincos_2d
from gormley_vision.models.vit import ViT, to_patches

_token = named(nn.initializers.normal(0.02), "embed")


class MaskedPatches(nn.Module):
    """Images [B, H, W, C] and which patches are hidden to predicted pixels [B, N, P * P * C]."""

    vit: ViT
    method: Literal["simmim", "mae"]
    decoder_width: int = 0
    decoder_depth: int = 0
    decoder_heads: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, order: jax.Array, count: int, train: bool = False) -> jax.Array:
        """Predict all patches.

        Args:
            images: [B, H, W, C] in [-1, 1].
            order: int [B, N], a permutation of the patches of each image; the first N - `count` are visible.
            count: of hidden patches.
            train: as in `ViT`.
        """
        pixels = self.vit.patch_size**2 * images.shape[-1]
        head = Projection((pixels,), ("embed", "patch_in"), xavier, True, self.dtype, name="head")
        visible = order.shape[1] - count
        if self.method == "simmim":
            token = self.param("mask_token", _token, (self.vit.width,))
            tokens = self.vit(images, train, hidden=(hidden_patches(order, count), token), as_tokens=True)
            return head(tokens[:, self.vit.num_prefix_tokens :]).astype(jnp.float32)
        tokens = self.vit(images, train, kept=order[:, :visible], as_tokens=True)
        width = self.decoder_width
        tokens = Projection((width,), ("embed", "mlp"), xavier, True, self.dtype, name="to_decoder")(tokens)
        prefix, tokens = tokens[:, : self.vit.num_prefix_tokens], tokens[:, self.vit.num_prefix_tokens :]
        token = self.param("mask_token", _token, (width,)).astype(self.dtype)
        tokens = jnp.concatenate([tokens, jnp.broadcast_to(token, (len(images), count, width))], axis=1)
        tokens = jax.vmap(jnp.take, (0, 0, None))(tokens, jnp.argsort(order, axis=1), 0)  # back in their own places
        grid = images.shape[1] // self.vit.patch_size, images.shape[2] // self.vit.patch_size
        tokens = tokens + sincos_2d(*grid, width).astype(self.dtype)[None]
        tokens = split_by_image(jnp.concatenate([prefix, tokens], axis=1), unsplit=2)
        options = {"heads": self.decoder_heads, "mlp": 4 * width, "dtype": self.dtype, "train": train}
        decoder = stack_blocks(self.decoder_depth, scan=self.vit.scan, remat=self.vit.remat, name="decoder", **options)
        tokens, _ = decoder(tokens, jnp.zeros(self.decoder_depth), None, None, None, None)
        tokens = make_norm(Norm(), self.dtype, "decoder_norm")(tokens)
        return head(tokens[:, self.vit.num_prefix_tokens :]).astype(jnp.float32)


def hidden_patches(order: jax.Array, count: int) -> jax.Array:
    """Return which patches are hidden, bool [B, N]: the last `count` of each row of `order`."""
    return jnp.argsort(order, axis=1) >= order.shape[1] - count


def targets_of(images: jax.Array, size: int, normalised: bool) -> jax.Array:
    """Return the pixels of each patch [B, N, P * P * C], as they are, or each patch with mean 0 and variance 1."""
    patches = to_patches(images, size)
    if not normalised:
        return patches
    mean, variance = patches.mean(-1, keepdims=True), patches.var(-1, keepdims=True, ddof=1)
    return (patches - mean) / jnp.sqrt(variance + 1e-6)


def to_images(patches: jax.Array, grid: tuple[int, int], size: int) -> jax.Array:
    """Invert `models.vit.to_patches`: [B, N, P * P * C] to [B, H, W, C]."""
    batch, channels = patches.shape[0], patches.shape[2] // size**2
    split = patches.reshape(batch, *grid, size, size, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(batch, grid[0] * size, grid[1] * size, channels)
