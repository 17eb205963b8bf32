"""Residual players of WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028) and SNGAN (Miyato et al. 2018, 1802.05957).

At 32 pixels (SNGAN, table 4; gan_cifar_resnet.py of WGAN-GP) every map has `width` channels, 256 or 128 in the
generator and 128 in the discriminator. With `doubling`, as at 64 pixels, they double with each halving of the map, from
`width` at the largest one. A block halves or doubles the map by an average, or by repeating pixels, around 3x3
convolutions; its shortcut is a 1x1 convolution where the map or the channels change, of the smaller map: it commutes
with both. The discriminator has no normalisation: penalties need none, and spectral normalisation acts on its
parameters.

The published discriminators differ in how they end: SNGAN sums over pixels and has no bias, WGAN-GP averages and has
one. Weights start as in SNGAN's code: Glorot-uniform, times sqrt(2) inside of blocks. Deviation: WGAN-GP's code starts
with He's in blocks.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import (
    ConditionalBatchNorm,
    Convolution,
    Logits,
    at_least_float32,
    batch_norm,
    dense,
    doubled,
    halved,
    logit_head,
    with_label_maps,
    with_one_hot,
)

BASE = 4  # pixels along the generator's first map
_glorot = nn.initializers.glorot_uniform()
_glorot_root_2 = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


def _conv3(features: int, **options: Any) -> Convolution:
    return Convolution(features, 3, 1, (1, 1), use_bias=True, **{"initial": _glorot_root_2, **options})


def _conv1(features: int, **options: Any) -> Convolution:
    return Convolution(features, 1, 1, (0, 0), use_bias=True, initial=_glorot, **options)


class Generator(nn.Module):
    """Noise [B, Z], and labels int [B] if `classes` > 0, to images [B, *shape] in [-1, 1], with `shape` (S, S, C).

    S is 4 * 2^n; `conditioning` as in `dcgan.Generator`.
    """

    shape: tuple[int, int, int]
    width: int = 256
    doubling: bool = False
    classes: int = 0
    conditioning: str = "concatenation"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noise: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Generate images, in float32 or wider."""
        by_class = bool(self.classes) and self.conditioning == "batch_norm"

        def normalised(x: jax.Array) -> jax.Array:
            if by_class and labels is not None:
                return nn.relu(ConditionalBatchNorm(self.classes, train, self.dtype)(x, labels))
            return nn.relu(batch_norm(train, self.dtype, nn.initializers.ones)(x))

        stages = int(math.log2(self.shape[0] // BASE))
        first = self.width * 2**stages if self.doubling else self.width
        x = noise.astype(self.dtype) if by_class else with_one_hot(noise.astype(self.dtype), labels, self.classes)
        x = dense(BASE * BASE * first, "latent", "map", dtype=self.dtype, initial=_glorot)(x)
        x = x.reshape(-1, BASE, BASE, first)
        for stage in range(stages):
            features = first // 2 ** (stage + 1) if self.doubling else first
            y = _conv3(features, resampling="doubled")(normalised(x))
            y = _conv3(features)(normalised(y))
            x = y + doubled(_conv1(features)(x))
        x = _conv3(self.shape[-1], outputs="channels", initial=_glorot)(normalised(x))
        return jnp.tanh(at_least_float32(x))


class Discriminator(nn.Module):
    """Images [B, S, S, C] in [-1, 1], and labels int [B] if `classes` > 0, to logits [B]; see `logit_head`.

    At 32 pixels two blocks halve the map and two keep it at 8; with `doubling` every block halves it, to 2 pixels.
    """

    width: int = 128
    doubling: bool = False
    pooling: str = "sum"
    classes: int = 0
    conditioning: str = "concatenation"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array | None = None, *, train: bool) -> Logits:
        """Return logits, in float32 or wider."""
        del train
        maps = self.classes if self.conditioning == "concatenation" else 0
        x = with_label_maps(images, labels, maps).astype(self.dtype)
        y = _conv3(self.width, resampling="halved")(nn.relu(_conv3(self.width, inputs="channels")(x)))
        x = y + _conv1(self.width, inputs="channels")(halved(x))
        if self.doubling:
            plan = [(2 ** (stage + 1), True) for stage in range(int(math.log2(images.shape[1] // BASE)))]
        else:
            plan = [(1, True)] * int(math.log2(images.shape[1] // 16)) + [(1, False)] * 2
        for factor, shrinks in plan:
            x = _block(x, self.width * factor, shrinks)
        x = nn.relu(x)
        x = jnp.sum(x, axis=(1, 2)) if self.pooling == "sum" else jnp.mean(x, axis=(1, 2))
        return logit_head(
            x,
            labels,
            classes=self.classes,
            conditioning=self.conditioning,
            dtype=self.dtype,
            use_bias=self.pooling == "mean",
            initial=_glorot,
            label_initial=_glorot,
        )


def _block(x: jax.Array, features: int, shrinks: bool) -> jax.Array:
    """Return a residual block's output; its layers belong to the module that calls it."""
    y = nn.relu(_conv3(x.shape[-1])(nn.relu(x)))
    if not shrinks:
        return x + _conv3(features)(y)
    return _conv3(features, resampling="halved")(y) + _conv1(features)(halved(x))
