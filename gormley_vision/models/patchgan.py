"""PatchGAN discriminator: one logit for each patch (Isola et al. 2017, arXiv:1611.07004, sections 3.2.2, 6.1.2).

A stack of 4x4 convolutions, n of stride 2 and then two of stride 1, ends in a map of logits; each sees
16, 34, 70, 142 or 286 pixels for n = 1 to 5. Widths double up to 8 times the first. The pixel version (receptive field
1) has 1x1 kernels throughout. A condition, such as pix2pix's input image, is concatenated to the images by the caller.
Details as in the authors' PyTorch code (junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py): no norm after the
first layer, and a bias where no BatchNorm follows, but for the last layer of the pixel version, which has none if the
net has BatchNorm.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import (
    Convolution,
    at_least_float32,
    batch_norm,
    instance_norm,
    leaky_relu,
    with_label_maps,
)

# receptive field in pixels -> layers of stride 2
STRIDED_LAYERS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


class PatchDiscriminator(nn.Module):
    """Images [B, H, W, C] in [-1, 1], and labels int [B] if `classes` > 0, to logits [B, h, w].

    `norm` is 'batch' (with running statistics), 'instance' (no parameters, no state) or 'none'.
    """

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
        use_bias = self.norm != "batch"
        normalise: dict[str, Callable[[jax.Array], jax.Array]] = {
            "batch": lambda x: batch_norm(train, self.dtype)(x),
            "instance": instance_norm,
            "none": lambda x: x,
        }
        x = with_label_maps(images, labels, self.classes).astype(self.dtype)
        for layer, stride in enumerate(strides):
            first = layer == 0
            features = self.width * min(2**layer, 8)
            inputs = "channels" if first else "conv_in"
            x = Convolution(features, kernel_size, stride, padding, use_bias or first, inputs)(x)
            x = leaky_relu(x if first else normalise[self.norm](x))
        logits = Convolution(1, kernel_size, 1, padding, use_bias or strided > 0, outputs="logits")(x)[..., 0]
        return at_least_float32(logits)
