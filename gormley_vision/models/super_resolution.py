"""Super-resolution nets: ESPCN, FSRCNN and EDSR, fully convolutional, all with zeros outside the image.

They read the small image and enlarge at the end. Images have any range and any number of channels, which is also that
of the output: the published counts of ESPCN and FSRCNN are of luma alone, those of EDSR of RGB. Outputs are float32 or
wider, and not cut off.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import Convolution, Initializer, TransposedConvolution, at_least_float32
from gormley_vision.layers.naming import named
from gormley_vision.layers.resampling import imresize, pixel_shuffle

_he_by_outputs = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_nearly_zero = nn.initializers.normal(0.001)
_torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _same(
    features: int,
    kernel_size: int,
    initial: Initializer,
    inputs: str = "conv_in",
    outputs: str = "conv_out",
) -> Convolution:
    """Return a convolution with a bias that keeps the size."""
    pad = kernel_size // 2
    return Convolution(features, kernel_size, 1, (pad, pad), True, inputs, outputs, initial)


class ESPCN(nn.Module):
    """Images [B, H, W, C] to [B, scale * H, scale * W, C] (Shi et al. 2016, arXiv:1609.05158, section 3.2).

    Convolutions 5-3-3 of 64, 32 and C * scale^2 channels, tanh between them, and a pixel shuffle. Initialisation as in
    yjn870/ESPCN-pytorch; the paper gives none.
    """

    scale: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Enlarge images."""
        del train
        channels = images.shape[-1]
        x = images.astype(self.dtype)
        x = jnp.tanh(_same(64, 5, _he_by_outputs, inputs="channels")(x))
        x = jnp.tanh(_same(32, 3, _he_by_outputs)(x))
        x = _same(channels * self.scale**2, 3, _nearly_zero, outputs="channels")(x)
        return at_least_float32(pixel_shuffle(x, self.scale))


class FSRCNN(nn.Module):
    """Images [B, H, W, C] to [B, scale * H, scale * W, C] (Dong et al. 2016, arXiv:1608.00367, section 3).

    FSRCNN(d, s, m) = (features, shrunk, mapping): 5x5 features, 1x1 to the shrunk ones, `mapping` 3x3 layers, 1x1 back,
    and a 9x9 transposed convolution. PReLU between them, a slope for each channel from 0.25. Initialisation as in
    yjn870/FSRCNN-pytorch; the paper's is He's for PReLU, by inputs.
    """

    scale: int = 2
    features: int = 56
    shrunk: int = 12
    mapping: int = 4
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Enlarge images."""
        del train
        layers = [(self.features, 5), (self.shrunk, 1), *[(self.shrunk, 3)] * self.mapping, (self.features, 1)]
        x = images.astype(self.dtype)
        for layer, (features, kernel_size) in enumerate(layers):
            x = _same(features, kernel_size, _he_by_outputs, inputs="conv_in" if layer else "channels")(x)
            slope = self.param(f"slope_{layer}", named(nn.initializers.constant(0.25), "features"), (features,))
            x = jnp.where(x >= 0, x, x * slope.astype(x.dtype)[None, None, None, :])
        enlarge = TransposedConvolution(
            images.shape[-1], 9, self.scale, (4, 4), outputs="channels", use_bias=True, initial=_nearly_zero
        )
        return at_least_float32(enlarge(x))


class EDSR(nn.Module):
    """Images [B, H, W, C] to [B, scale * H, scale * W, C] (Lim et al. 2017, arXiv:1707.02921, section 3.2).

    3x3 convolutions: one, `blocks` residual blocks (convolution, ReLU, convolution, times `residual_scale`), one, the
    sum with the first map, pixel shuffles by 2, 2 times 2 or 3, one. 16 blocks of 64 features are the baseline; 32 of
    256 with a residual scale of 0.1 are the large net. Layout and initialisation as in XPixelGroup/BasicSR, that is,
    PyTorch's uniform kernels; deviations: biases start at 0, and the mean colour of DIV2K is not subtracted, nor are
    values multiplied by 255 inside.

    With `bicubic_skip` the output is added to the bicubic enlargement, and the last convolution starts at zero: the
    untrained net is bicubic interpolation (VDSR's residual, Kim et al. 2016, arXiv:1511.04587; not in the paper).
    """

    scale: int = 2
    features: int = 64
    blocks: int = 16
    residual_scale: float = 1.0
    bicubic_skip: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Enlarge images.

        Raises:
            ValueError: the scale is neither 3 nor a power of 2.
        """
        del train
        doublings = self.scale.bit_length() - 1
        if self.scale != 3 and self.scale != 2**doublings:
            raise ValueError(f"EDSR enlarges by 3 or by a power of 2, not by {self.scale}")
        first = x = _same(self.features, 3, _torch_default, inputs="channels")(images.astype(self.dtype))
        for _ in range(self.blocks):
            y = nn.relu(_same(self.features, 3, _torch_default)(x))
            x = x + self.residual_scale * _same(self.features, 3, _torch_default)(y)
        x = first + _same(self.features, 3, _torch_default)(x)
        for factor in [3] if self.scale == 3 else [2] * doublings:
            x = pixel_shuffle(_same(self.features * factor**2, 3, _torch_default)(x), factor)
        last = nn.initializers.zeros if self.bicubic_skip else _torch_default
        x = at_least_float32(_same(images.shape[-1], 3, last, outputs="channels")(x))
        return x + imresize(images, self.scale) if self.bicubic_skip else x
