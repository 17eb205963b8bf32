"""Networks that paint a picture in one pass: Johnson's transformer net, and AdaIN's decoder.

Both pad by reflection, which draws no frame around a picture, and enlarge by repeating pixels before a convolution,
which draws no checkerboard.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import Convolution, at_least_float32, doubled
from gormley_vision.layers.naming import named
from gormley_vision.models.vgg import CHANNELS, LAYERS

_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default for convolutions


class TransformerNet(nn.Module):
    """Pictures [B, H, W, 3] in [-1, 1] to restyled ones: Johnson et al. 2016 (arXiv:1603.08155), supplement, table 1.

    As in pytorch/examples (fast_neural_style): InstanceNorm (Ulyanov et al. 2016, arXiv:1607.08022) with scales and
    biases, biased convolutions, enlargement by repeated pixels, reflection at each layer. `tanh` at the end is the
    paper's. At `width` 32: 1,679,235 parameters.
    """

    width: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Restyle; any size of at least 5 pixels, which the result has, too."""
        height, width = images.shape[1:3]
        x = images.astype(self.dtype)
        for kernel_size, stride, features in ((9, 1, self.width), (3, 2, 2 * self.width), (3, 2, 4 * self.width)):
            inputs = "channels" if kernel_size == 9 else "conv_in"
            x = nn.relu(self._norm(_convolved(x, features, kernel_size, stride, inputs=inputs)))
        for _ in range(5):
            y = nn.relu(self._norm(_convolved(x, 4 * self.width, 3)))
            x = x + self._norm(_convolved(y, 4 * self.width, 3))
        for features in (2 * self.width, self.width):
            x = nn.relu(self._norm(_convolved(doubled(x), features, 3)))
        x = _convolved(x, 3, 9, outputs="channels")[:, :height, :width]  # halves were rounded up
        return jnp.tanh(at_least_float32(x))

    def _norm(self, x: jax.Array) -> jax.Array:
        scale, bias = named(nn.initializers.ones, "features"), named(nn.initializers.zeros, "features")
        norm = nn.InstanceNorm(
            epsilon=1e-5, scale_init=scale, bias_init=bias, dtype=self.dtype, use_fast_variance=False
        )
        return norm(x)


class Decoder(nn.Module):
    """VGG-19's features at `layer` [B, h, w, C] to pictures [B, H, W, 3]: the mirror of the layers up to it, no norms.

    Huang & Belongie 2017 (arXiv:1703.06868), section 6, and github.com/xunhuang1995/AdaIN-style (train.lua). `layer` is
    the first of a block; from relu4_1: 3,505,219 parameters.
    """

    layer: str = "relu4_1"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Paint; the result is not bounded."""
        x = features.astype(self.dtype)
        for place in range(LAYERS.index(self.layer), 0, -1):
            x = nn.relu(_convolved(x, CHANNELS[LAYERS[place - 1]], 3))
            if LAYERS[place].endswith("_1"):
                x = doubled(x)
        return at_least_float32(_convolved(x, 3, 3, outputs="channels"))


def _convolved(
    x: jax.Array, features: int, kernel_size: int, stride: int = 1, inputs: str = "conv_in", outputs: str = "conv_out"
) -> jax.Array:
    """Convolve with reflection outside; the layer belongs to the module that calls it."""
    reach = kernel_size // 2
    x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    convolution = Convolution(features, kernel_size, stride, (0, 0), True, inputs, outputs, _uniform)
    return convolution(x)
