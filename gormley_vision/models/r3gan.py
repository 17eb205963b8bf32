"""R3GAN: Huang et al. 2025, "The GAN is dead; long live the GAN!" (arXiv:2501.05441), config E; from its description.

Both players are stages of residual blocks without normalisation, one stage for each size from 4 pixels up. A block is a
1x1 convolution to twice the channels, a 3x3 convolution in groups of 16, and a 1x1 convolution back, with a bias and
LeakyReLU 0.2 after the first two. Maps are resampled with the filter [1, 3, 3, 1], which is the paper's [1, 2, 1]
applied with pixels repeated or averaged in twos.

Initial weights: N(0, gain^2 / inputs), in blocks with gain sqrt(2 / 1.04) * L^(-1/4) for L blocks, and 0 for the last
convolution of each (section 3.4: Fix-up); 1 elsewhere. A label enters the generator by a linear map beside the noise,
and the discriminator's vector is multiplied by one for the class. Here every stage has `width` channels, as for
CIFAR-10 (768, 20.78M and 21.28M parameters).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.convolution import convolve_groups
from gormley_vision.layers.gan import Convolution, Initializer, at_least_float32, dense, leaky_relu
from gormley_vision.layers.naming import named

BASE = 4  # pixels along the smallest map
GROUP = 16  # channels of a group
EXPANSION = 2
LABEL_WIDTH = 64  # of the generator's label


def _scaled_normal(gain: float) -> Initializer:
    """Return N(0, gain^2 / inputs); of kernels [..., inputs, outputs]."""
    return nn.initializers.variance_scaling(gain**2, "fan_in", "normal")


class Block(nn.Module):
    """A residual block [B, h, w, C] -> [B, h, w, C] of a net with `blocks` blocks."""

    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Add the block's branch."""
        gain = math.sqrt(2 / 1.04) * self.blocks ** (-1 / 4)
        width = EXPANSION * x.shape[-1]
        y = Convolution(width, 1, 1, (0, 0), initial=_scaled_normal(gain), name="in")(x)
        y = leaky_relu(y + self._bias("bias_1", width, y))
        shape, names = (3, 3, GROUP, width), ("conv_height", "conv_width", "conv_in", "conv_out")
        kernel = self.param("grouped_kernel", named(_scaled_normal(gain), *names), shape).astype(y.dtype)
        y = convolve_groups(y, kernel)
        y = leaky_relu(y + self._bias("bias_2", width, y))
        return x + Convolution(x.shape[-1], 1, 1, (0, 0), initial=nn.initializers.zeros, name="out")(y)

    def _bias(self, name: str, features: int, y: jax.Array) -> jax.Array:
        bias = self.param(name, named(nn.initializers.zeros, "features"), (features,))
        return bias.astype(y.dtype)[None, None, None]


class Generator(nn.Module):
    """Noise [B, Z], and labels int [B] if `classes` > 0, to images [B, *shape], `shape` (S, S, C), S = 4 * 2^n.

    Images are not bounded: the published net ends in a 1x1 convolution. `depth` blocks a stage.
    """

    shape: tuple[int, int, int]
    width: int = 768
    depth: int = 2
    classes: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noise: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Generate images, in float32 or wider."""
        del train
        stages = int(math.log2(self.shape[0] // BASE)) + 1
        x = noise.astype(self.dtype)
        if self.classes:
            table = named(_over_root(self.classes), "classes", "latent")
            x = jnp.concatenate(
                [x, nn.Embed(self.classes, LABEL_WIDTH, embedding_init=table, dtype=self.dtype)(labels)], 1
            )
        x = dense(self.width, "latent", "features", dtype=self.dtype, initial=_scaled_normal(1.0), use_bias=False)(x)
        names = named(nn.initializers.normal(1.0), "conv_height", "conv_width", "features")
        basis = self.param("basis", names, (BASE, BASE, self.width)).astype(self.dtype)
        x = x[:, None, None, :] * basis[None]
        for stage in range(stages):
            x = upsampled(x) if stage else x
            for _ in range(self.depth):
                x = Block(stages * self.depth)(x)
        x = Convolution(self.shape[-1], 1, 1, (0, 0), outputs="channels", initial=_scaled_normal(1.0), name="to_image")(
            x
        )
        return at_least_float32(x)


class Discriminator(nn.Module):
    """Images [B, S, S, C], and labels int [B] if `classes` > 0, to logits [B]; `depth` blocks a stage.

    Labels are those of 'projection': the net's vector [B, width] times the class' own.
    """

    width: int = 768
    depth: int = 2
    classes: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Return logits, in float32 or wider."""
        del train
        stages = int(math.log2(images.shape[1] // BASE)) + 1
        x = images.astype(self.dtype)
        x = Convolution(self.width, 1, 1, (0, 0), inputs="channels", initial=_scaled_normal(1.0), name="from_image")(x)
        for stage in range(stages):
            x = downsampled(x) if stage else x
            for _ in range(self.depth):
                x = Block(stages * self.depth)(x)
        # A 4x4 convolution of each channel by itself.
        initial = named(nn.initializers.normal(1 / BASE), "conv_height", "conv_width", "features")
        basis = self.param("basis", initial, (BASE, BASE, self.width)).astype(self.dtype)
        x = jnp.sum(x * basis[None], axis=(1, 2))
        outputs = (self.width, "features", "map") if self.classes else (1, "features", "logits")
        x = dense(*outputs, dtype=self.dtype, initial=_scaled_normal(1.0), use_bias=False)(x)
        if not self.classes:
            return at_least_float32(x[:, 0])
        table = named(_over_root(self.width * self.classes), "classes", "map")
        return at_least_float32(
            jnp.sum(x * nn.Embed(self.classes, self.width, embedding_init=table, dtype=self.dtype)(labels), axis=1)
        )


def _over_root(fan: int) -> Initializer:
    """Return N(0, 1 / fan), of a label's linear map."""
    return nn.initializers.normal(fan**-0.5)


def upsampled(x: jax.Array) -> jax.Array:
    """Double [B, h, w, C] with the filter [1, 3, 3, 1] / 4 along each axis, zeros outside."""
    for axis in (1, 2):
        before, after = _neighbours(x, axis)
        pair = jnp.stack([3 * x + before, 3 * x + after], axis=axis + 1) / 4
        x = pair.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return x


def downsampled(x: jax.Array) -> jax.Array:
    """Halve [B, h, w, C] with the filter [1, 3, 3, 1] / 8 along each axis, zeros outside."""
    for axis in (1, 2):
        pair = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
        first, second = (jax.lax.index_in_dim(pair, i, axis + 1, keepdims=False) for i in range(2))
        before, after = _neighbours(second, axis)[0], _neighbours(first, axis)[1]
        x = (before + 3 * first + 3 * second + after) / 8
    return x


def _neighbours(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Return x shifted by one along `axis`: element i of the first is x[i - 1], and of the second x[i + 1]."""
    shift = [(1, -1, 0), (-1, 1, 0)]
    before, after = (
        jax.lax.pad(x, jnp.zeros((), x.dtype), [s if i == axis else (0, 0, 0) for i in range(x.ndim)]) for s in shift
    )
    return before, after
