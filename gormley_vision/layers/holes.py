"""Convolutions for images with holes: partial (the mask says what counts) and gated (the net decides).

Masks are bool [B, H, W, 1], True where a pixel is known.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.convolution import convolve
from gormley_vision.layers.gan import Convolution, Initializer, normal_weights
from gormley_vision.layers.naming import named


class PartialConvolution(nn.Module):
    """Convolution of known pixels alone: Liu et al. 2018 (arXiv:1804.07723), equations 1 and 2.

    x [B, H, W, C] and its mask to [B, h, w, features] and a mask: conv(x m) k^2 / sum(m) + bias where sum(m), over the
    window, is above 0, which is where the new mask is True; 0 elsewhere. Pixels of the padding are unknown, so also
    without a hole borders are scaled up, as in NVIDIA's partialconv. What is under the mask may be anything, NaN too.
    """

    features: int
    kernel_size: int
    stride: int
    padding: tuple[int, int]
    inputs: str = "conv_in"
    outputs: str = "conv_out"
    initial: Initializer = normal_weights

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Convolve; return the features and their mask."""
        y = Convolution(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            inputs=self.inputs,
            outputs=self.outputs,
            initial=self.initial,
        )(jnp.where(mask, x, 0))
        window = jnp.ones((self.kernel_size, self.kernel_size, 1, 1), jnp.float32)
        known = convolve(mask.astype(jnp.float32), window, stride=self.stride, padding=self.padding)
        factor = (self.kernel_size**2 / jnp.maximum(known, 1)).astype(y.dtype)
        bias = self.param("bias", named(nn.initializers.zeros, "features"), (self.features,)).astype(y.dtype)
        return jnp.where(known > 0, y * factor + bias[None, None, None, :], 0), known > 0


class GatedConvolution(nn.Module):
    """activation(features) * sigmoid(gate), both of one convolution: Yu et al. 2018 (arXiv:1806.03589), section 3.1.

    [B, H, W, C] to [B, h, w, features]. The kernel's first `features` outputs are the features, the rest their gates.
    """

    features: int
    kernel_size: int
    stride: int
    padding: tuple[int, int]
    activation: Callable[[jax.Array], jax.Array] = nn.elu
    inputs: str = "conv_in"
    initial: Initializer = normal_weights

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve and gate."""
        both = Convolution(
            2 * self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            use_bias=True,
            inputs=self.inputs,
            initial=self.initial,
        )(x)
        features, gates = jnp.split(both, 2, axis=-1)
        return self.activation(features) * nn.sigmoid(gates)
