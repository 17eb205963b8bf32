"""DCGAN: Radford, Metz & Chintala 2015 (arXiv:1511.06434).

The generator projects the noise to a small map and doubles it with fractionally-strided convolutions; the
discriminator halves the image with strided ones. Depth follows from the image size: halve while the size is
even and above 7, which gives the slide's four layers at 64 pixels (4, 8, 16, 32, 64) and two at MNIST's 28
(7, 14, 28). Widths double with each halving.

Two published variants: `kernel_size=4` with padding (1, 1), as in PyTorch's widely used example,
and `kernel_size=5` as in the authors' code, whose symmetric padding of 2 equals (2, 1) on an even image.
Convolutions have no bias, as in both. Deviation in form only: the first and last layers, 4x4 convolutions
of a 1x1 and to a 1x1 map in the PyTorch example, are written as dense layers, which is equivalent.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import (
    ConditionalBatchNorm,
    Convolution,
    Logits,
    TransposedConvolution,
    at_least_float32,
    batch_norm,
    dense,
    leaky_relu,
    logit_head,
    with_label_maps,
    with_one_hot,
)
from gormley_vision.models.sizes import halvings

PADDING = {4: (1, 1), 5: (2, 1)}  # kernel size -> padding that halves an even size at stride 2


class Generator(nn.Module):
    """Noise [B, Z], and labels int [B] if `classes` > 0, to images [B, *shape] in [-1, 1], with `shape` (S, S, C).

    A label is concatenated to the noise as a one-hot vector (Mirza & Osindero 2014, arXiv:1411.1784), or, with
    `conditioning` 'batch_norm', chooses the scale and bias of each BatchNorm.
    """

    shape: tuple[int, int, int]
    width: int = 64
    kernel_size: int = 4
    classes: int = 0
    conditioning: str = "concatenation"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noise: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Generate images, in float32 or wider."""
        base, doublings = halvings(self.shape[0])
        padding = PADDING[self.kernel_size]
        features = self.width * 2 ** (doublings - 1)
        by_class = bool(self.classes) and self.conditioning == "batch_norm"
        x = noise.astype(self.dtype) if by_class else with_one_hot(noise.astype(self.dtype), labels, self.classes)

        def normalise(x: jax.Array) -> jax.Array:
            if by_class and labels is not None:
                return ConditionalBatchNorm(self.classes, train, self.dtype)(x, labels)
            return batch_norm(train, self.dtype)(x)

        x = dense(base * base * features, "latent", "map", dtype=self.dtype, use_bias=False)(x)
        x = nn.relu(normalise(x.reshape(-1, base, base, features)))
        for _ in range(doublings - 1):
            features //= 2
            x = TransposedConvolution(features, self.kernel_size, 2, padding)(x)
            x = nn.relu(normalise(x))
        x = TransposedConvolution(self.shape[-1], self.kernel_size, 2, padding, outputs="channels")(x)
        return jnp.tanh(at_least_float32(x))


class Discriminator(nn.Module):
    """Images [B, S, S, C] in [-1, 1], and labels int [B] if `classes` > 0, to logits [B].

    A label is concatenated to the image as one-hot feature maps, or enters at the end: see `logit_head` for
    `conditioning` 'projection' and 'classifier'. `norm` 'none' leaves BatchNorm out, and gives convolutions biases:
    for penalties of single images' gradients. With `outputs` > 0 the same body is a classifier: logits [B, outputs].
    """

    width: int = 64
    kernel_size: int = 4
    norm: str = "batch"
    classes: int = 0
    conditioning: str = "concatenation"
    outputs: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array | None = None, *, train: bool) -> Logits:
        """Return logits, in float32 or wider."""
        _, depth = halvings(images.shape[1])
        padding = PADDING[self.kernel_size]
        maps = self.classes if self.conditioning == "concatenation" else 0
        x = with_label_maps(images, labels, maps).astype(self.dtype)
        bare = self.norm == "none"
        for layer in range(depth):
            inputs = "channels" if layer == 0 else "conv_in"
            x = Convolution(self.width * 2**layer, self.kernel_size, 2, padding, use_bias=bare, inputs=inputs)(x)
            x = leaky_relu(x if layer == 0 or bare else batch_norm(train, self.dtype)(x))
        x = x.reshape(x.shape[0], -1)
        if self.outputs:
            return at_least_float32(dense(self.outputs, "map", "classes", dtype=self.dtype, use_bias=False)(x))
        return logit_head(x, labels, classes=self.classes, conditioning=self.conditioning, dtype=self.dtype)
