"""Layers of GANs: N(0, 0.02) convolutions, BatchNorm, LeakyReLU, resampling, and how a class label enters.

Initialisation and slopes: Radford et al. 2015 (arXiv:1511.06434), section 4. The authors' code also draws
BatchNorm scales from N(1, 0.02). Deviation: running variances are the biased ones (flax).
"""

from functools import reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.convolution import convolve, convolve_transposed, reversed_kernel
from gormley_vision.layers.naming import named

Initializer = nn.initializers.Initializer
normal_weights = nn.initializers.normal(0.02)
BATCH_NORM_MOMENTUM = 0.9  # of the running statistics
Logits = jax.Array | tuple[jax.Array, jax.Array]  # real or fake; and, of an auxiliary classifier, those of classes


def _one_plus_normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    return 1 + normal_weights(key, shape, dtype)


class Convolution(nn.Module):
    """Square kernel, `stride`, `padding` (low, high): [B, H, W, C] -> [B, h, w, features].

    `inputs` and `outputs` name the kernel's axes of channels; they differ if these are an image's or logits.
    `resampling`, of a convolution with stride 1 that keeps the size: '' for none; 'doubled' before, or 'halved' after
    it. Each is computed as one convolution of stride 2 by a kernel larger by one: 4/9 of the products of a 3x3 kernel.
    """

    features: int
    kernel_size: int
    stride: int
    padding: tuple[int, int]
    use_bias: bool = False
    inputs: str = "conv_in"
    outputs: str = "conv_out"
    initial: Initializer = normal_weights
    resampling: str = ""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        names = ("conv_height", "conv_width", self.inputs, self.outputs)
        kernel = self.param("kernel", named(self.initial, *names), shape).astype(x.dtype)
        if self.resampling == "halved":
            y = convolve(x, _spread(kernel) / 4, stride=2, padding=self.padding)
        elif self.resampling == "doubled":
            y = convolve_transposed(x, _spread(reversed_kernel(kernel)), stride=2, padding=self.padding[::-1])
        else:
            y = convolve(x, kernel, stride=self.stride, padding=self.padding)
        if not self.use_bias:
            return y
        bias = self.param("bias", named(nn.initializers.zeros, "features"), (self.features,)).astype(x.dtype)
        return y + bias[None, None, None, :]


class TransposedConvolution(nn.Module):
    """Fractionally-strided: [B, h, w, C] -> [B, h*stride, w*stride, features].

    The kernel is that of the convolution that this transposes, [k, k, features, C].
    """

    features: int
    kernel_size: int
    stride: int
    padding: tuple[int, int]
    outputs: str = "conv_out"
    use_bias: bool = False
    initial: Initializer = normal_weights

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve with fractional stride."""
        shape = (self.kernel_size, self.kernel_size, self.features, x.shape[-1])
        names = ("conv_height", "conv_width", self.outputs, "conv_in")
        kernel = self.param("kernel", named(self.initial, *names), shape).astype(x.dtype)
        y = convolve_transposed(x, kernel, stride=self.stride, padding=self.padding)
        if not self.use_bias:
            return y
        bias = self.param("bias", named(nn.initializers.zeros, "features"), (self.features,)).astype(x.dtype)
        return y + bias[None, None, None, :]


def batch_norm(train: bool, dtype: jnp.dtype, scale: Initializer = _one_plus_normal) -> nn.BatchNorm:
    """Return BatchNorm over all axes but channels; `train` uses the batch's statistics and updates running ones."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=1e-5,
        scale_init=named(scale, "features"),
        bias_init=named(nn.initializers.zeros, "features"),
        dtype=dtype,
    )


def _standardised(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return float32 (or wider) numbers of mean 0 and variance 1 over `axes`; 1e-5 is added to a variance."""
    x = at_least_float32(x)
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axes, keepdims=True) + 1e-5)


def instance_norm(x: jax.Array) -> jax.Array:
    """Normalise each channel of each image of [B, H, W, C] over its pixels (Ulyanov et al. 2016, arXiv:1607.08022).

    No scale and no bias, as in pix2pix's and CycleGAN's code. A map of one pixel becomes 0.
    """
    return _standardised(x, (1, 2)).astype(x.dtype)


class StatelessBatchNorm(nn.Module):
    """BatchNorm of [B, H, W, C] that always uses the statistics of the batch it gets, and keeps no running ones."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise, then scale and shift."""
        scale = self.param("scale", named(_one_plus_normal, "features"), (x.shape[-1],))
        bias = self.param("bias", named(nn.initializers.zeros, "features"), (x.shape[-1],))
        y = _standardised(x, (0, 1, 2)) * scale[None, None, None, :] + bias[None, None, None, :]
        return y.astype(x.dtype)


def dense(
    features: int,
    inputs: str,
    outputs: str,
    *,
    dtype: Any,
    initial: Initializer = normal_weights,
    use_bias: bool = True,
    name: str | None = None,
) -> nn.Dense:
    """Return a dense layer whose kernel's axes are `inputs` and `outputs`; its bias starts at 0."""
    kernel, bias = named(initial, inputs, outputs), named(nn.initializers.zeros, outputs)
    return nn.Dense(features, use_bias, kernel_init=kernel, bias_init=bias, dtype=dtype, name=name)


class ConditionalBatchNorm(nn.Module):
    """BatchNorm with a scale and a bias for each class: [B, ..., C] and labels [B] (de Vries et al. 2017, 1707.00683).

    The generator's way in SNGAN's conditional form (Miyato & Koyama 2018, arXiv:1802.05637). Scales are 1 at first.
    """

    classes: int
    train: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """Normalise, then scale and shift by class."""
        normalise = nn.BatchNorm(
            use_running_average=not self.train,
            momentum=BATCH_NORM_MOMENTUM,
            epsilon=1e-5,
            use_scale=False,
            use_bias=False,
            dtype=self.dtype,
        )
        shape, names = (self.classes, x.shape[-1]), ("classes", "features")
        scale = self.param("scale", named(nn.initializers.ones, *names), shape)
        bias = self.param("bias", named(nn.initializers.zeros, *names), shape)
        by_image = (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
        scale, bias = (table.astype(self.dtype)[labels].reshape(by_image) for table in (scale, bias))
        return normalise(x) * scale + bias


def logit_head(
    features: jax.Array,
    labels: jax.Array | None,
    *,
    classes: int,
    conditioning: str,
    dtype: Any,
    use_bias: bool = False,
    initial: Initializer = normal_weights,
    label_initial: Initializer = normal_weights,
) -> Logits:
    """Return a discriminator's logits [B] of features [B, F]; its layers belong to the module that calls it.

    'projection' adds the inner product of the features with a vector for the class (Miyato & Koyama 2018,
    arXiv:1802.05637, equation 3). 'classifier' also returns logits of the classes, [B, Y] (AC-GAN: Odena et al. 2016,
    arXiv:1610.09585). For 'concatenation' the label was beside the image, and the head does not read it.
    """
    logits = dense(1, "map", "logits", dtype=dtype, initial=initial, use_bias=use_bias)(features)[:, 0]
    if classes and conditioning == "projection":
        table = named(label_initial, "classes", "map")
        vectors = nn.Embed(classes, features.shape[1], embedding_init=table, dtype=dtype)(labels)
        logits += jnp.sum(vectors * features, axis=1)
    if classes and conditioning == "classifier":
        by_class = dense(classes, "map", "classes", dtype=dtype, initial=label_initial)(features)
        return at_least_float32(logits), at_least_float32(by_class)
    return at_least_float32(logits)


def doubled(x: jax.Array) -> jax.Array:
    """Repeat each pixel of [B, H, W, C] in 2x2."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def halved(x: jax.Array) -> jax.Array:
    """Average 2x2 pixels of [B, H, W, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _spread(kernel: jax.Array) -> jax.Array:
    """Sum a kernel [k, k, C, O] with itself, moved by one along either axis and both: [k + 1, k + 1, C, O]."""
    corners = [(a, b) for a in (0, 1) for b in (0, 1)]
    return reduce(jnp.add, [jnp.pad(kernel, [(a, 1 - a), (b, 1 - b), (0, 0), (0, 0)]) for a, b in corners])


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


def with_one_hot(noise: jax.Array, labels: jax.Array | None, classes: int) -> jax.Array:
    """Append `classes` one-hot numbers to vectors [B, Z]; return them unchanged if it is 0."""
    if not classes:
        return noise
    return jnp.concatenate([noise, jax.nn.one_hot(labels, classes, dtype=noise.dtype)], axis=-1)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Convert to float32, unless the type is already wider: for logits and images that leave a model."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
