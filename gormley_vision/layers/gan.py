"""Layers of DCGAN and PatchGAN: N(0, 0.02) convolutions, BatchNorm, LeakyReLU, label maps.

Initialisation and slopes: Radford et al. 2015 (arXiv:1511.06434), section 4. The authors' code also draws
BatchNorm scales from N(1, 0.02). Deviation: running variances are the biased ones (flax).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.convolution import convolve, convolve_transposed
from gormley_vision.layers.naming import named

normal_weights = nn.initializers.normal(0.02)
BATCH_NORM_MOMENTUM = 0.9  # of the running statistics


def _one_plus_normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    return 1 + normal_weights(key, shape, dtype)


class Convolution(nn.Module):
    """Square kernel, `stride`, `padding` (low, high): [B, H, W, C] -> [B, h, w, features].

    `inputs` and `outputs` name the kernel's axes of channels; they differ if these are an image's or logits.
    """

    features: int
    kernel_size: int
    stride: int
    padding: tuple[int, int]
    use_bias: bool = False
    inputs: str = "conv_in"
    outputs: str = "conv_out"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        names = ("conv_height", "conv_width", self.inputs, self.outputs)
        kernel = self.param("kernel", named(normal_weights, *names), shape).astype(x.dtype)
        y = convolve(x, kernel, stride=self.stride, padding=self.padding)
        if not self.use_bias:
            return y
        bias = self.param("bias", named(nn.initializers.zeros, "features"), (self.features,)).astype(x.dtype)
        return y + bias[None, None, None, :]


class TransposedConvolution(nn.Module):
    """Fractionally-strided, no bias: [B, h, w, C] -> [B, h*stride, w*stride, features].

    The kernel is that of the convolution that this transposes, [k, k, features, C].
    """

    features: int
    kernel_size: int
    stride: int
    padding: tuple[int, int]
    outputs: str = "conv_out"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve with fractional stride."""
        shape = (self.kernel_size, self.kernel_size, self.features, x.shape[-1])
        names = ("conv_height", "conv_width", self.outputs, "conv_in")
        kernel = self.param("kernel", named(normal_weights, *names), shape).astype(x.dtype)
        return convolve_transposed(x, kernel, stride=self.stride, padding=self.padding)


def batch_norm(train: bool, dtype: jnp.dtype) -> nn.BatchNorm:
    """Return BatchNorm over all axes but channels; `train` uses the batch's statistics and updates running ones."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=1e-5,
        scale_init=named(_one_plus_normal, "features"),
        bias_init=named(nn.initializers.zeros, "features"),
        dtype=dtype,
    )


def leaky_relu(x: jax.Array) -> jax.Array:
    """Apply LeakyReLU with slope 0.2."""
    return nn.leaky_relu(x, 0.2)


def with_label_maps(images: jax.Array, labels: jax.Array | None, classes: int) -> jax.Array:
    """Append `classes` one-hot feature maps to images [B, H, W, C]; return images unchanged if it is 0."""
    if not classes:
        return images
    batch, height, width, _ = images.shape
    one_hot = jax.nn.one_hot(labels, classes, dtype=images.dtype)[:, None, None, :]
    return jnp.concatenate([images, jnp.broadcast_to(one_hot, (batch, height, width, classes))], axis=-1)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Convert to float32, unless the type is already wider: for logits and images that leave a model."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
