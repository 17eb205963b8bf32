"""PatchGAN discriminator: one logit for each patch (Isola et al. 2017, arXiv:1611.07004, sections 3.2.2, 6.1.2).

A stack of 4x4 convolutions, n of stride 2 and then two of stride 1, ends in a map of logits; each sees
16, 34 or 70 pixels for n = 1, 2, 3. The pixel version (receptive field 1) has 1x1 kernels throughout.
As in the authors' code: no BatchNorm after the first layer, bias only where no BatchNorm follows. `norm` 'none' leaves
BatchNorm out.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import Convolution, at_least_float32, batch_norm, leaky_relu, with_label_maps

STRIDED_LAYERS = {1: 0, 16: 1, 34: 2, 70: 3}  # receptive field in pixels -> layers of stride 2


class PatchDiscriminator(nn.Module):
    """Images [B, H, W, C] in [-1, 1], and labels int [B] if `classes` > 0, to logits [B, h, w]."""

    receptive_field: int = 70
    width: int = 64
    norm: str = "batch"
    classes: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Return one logit for each patch, in float32 or wider."""
        strided = STRIDED_LAYERS[self.receptive_field]
        kernel_size, padding = (4, (1, 1)) if strided else (1, (0, 0))
        strides = [2] * strided + [1] if strided else [1, 1]
        x = with_label_maps(images, labels, self.classes).astype(self.dtype)
        for layer, stride in enumerate(strides):
            first = layer == 0
            inputs = "channels" if first else "conv_in"
            bare = first or self.norm == "none"
            x = Convolution(self.width * 2**layer, kernel_size, stride, padding, use_bias=bare, inputs=inputs)(x)
            x = leaky_relu(x if bare else batch_norm(train, self.dtype)(x))
        logits = Convolution(1, kernel_size, 1, padding, use_bias=True, outputs="logits")(x)[..., 0]
        return at_least_float32(logits)
