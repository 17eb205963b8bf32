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

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import (
    Convolution,
    TransposedConvolution,
    at_least_float32,
    batch_norm,
    leaky_relu,
    normal_weights,
    with_label_maps,
)
from gormley_vision.layers.naming import named
from gormley_vision.models.sizes import halvings

PADDING = {4: (1, 1), 5: (2, 1)}  # kernel size -> padding that halves an even size at stride 2


class Generator(nn.Module):
    """Noise [B, Z], and labels int [B] if `classes` > 0, to images [B, S, S, channels] in [-1, 1].

    A label is concatenated to the noise as a one-hot vector (Mirza & Osindero 2014, arXiv:1411.1784).
    """

    image_size: int
    channels: int
    latent_size: int = 100
    width: int = 64
    kernel_size: int = 4
    classes: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, noise: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Generate images, in float32 or wider."""
        base, doublings = halvings(self.image_size)
        padding = PADDING[self.kernel_size]
        features = self.width * 2 ** (doublings - 1)
        x = noise.astype(self.dtype)
        if self.classes:
            x = jnp.concatenate([x, jax.nn.one_hot(labels, self.classes, dtype=self.dtype)], axis=-1)
        kernel = named(normal_weights, "latent", "map")
        x = nn.Dense(base * base * features, use_bias=False, kernel_init=kernel, dtype=self.dtype)(x)
        x = nn.relu(batch_norm(train, self.dtype)(x.reshape(-1, base, base, features)))
        for _ in range(doublings - 1):
            features //= 2
            x = TransposedConvolution(features, self.kernel_size, 2, padding)(x)
            x = nn.relu(batch_norm(train, self.dtype)(x))
        x = TransposedConvolution(self.channels, self.kernel_size, 2, padding, outputs="channels")(x)
        return jnp.tanh(at_least_float32(x))


class Discriminator(nn.Module):
    """Images [B, S, S, C] in [-1, 1], and labels int [B] if `classes` > 0, to logits [B].

    A label is concatenated to the image as one-hot feature maps. With `outputs` > 0 the same body is a
    classifier: logits [B, outputs].
    """

    width: int = 64
    kernel_size: int = 4
    classes: int = 0
    outputs: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Return logits, in float32 or wider."""
        _, depth = halvings(images.shape[1])
        padding = PADDING[self.kernel_size]
        x = with_label_maps(images, labels, self.classes).astype(self.dtype)
        for layer in range(depth):
            inputs = "channels" if layer == 0 else "conv_in"
            x = Convolution(self.width * 2**layer, self.kernel_size, 2, padding, inputs=inputs)(x)
            x = leaky_relu(x if layer == 0 else batch_norm(train, self.dtype)(x))
        x = x.reshape(x.shape[0], -1)
        kernel = named(normal_weights, "map", "classes" if self.outputs else "logits")
        x = nn.Dense(max(1, self.outputs), use_bias=False, kernel_init=kernel, dtype=self.dtype)(x)
        return at_least_float32(x if self.outputs else x[:, 0])
