"""pix2pix's U-Net: an image to an image of the same size (Isola et al. 2017, arXiv:1611.07004, sections 3.2.1, 6.1.1).

4x4 convolutions halve the image to the bottleneck and transposed ones double it again; each doubled map stands beside
the map of its size on the way down (a skip connection). Details as in the authors' PyTorch code
(junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py):

- no norm after the first convolution, and none at the bottleneck, whose only pixel it would make constant (the Lua
  code of the paper has one there);
- dropout on the way up, where widths are equal, but not straight after the bottleneck: in three places of 8 levels, in
  none of 5. The paper's three begin at the bottleneck.

**Norms have no running statistics.** BatchNorm uses those of the batch it gets, in training and afterwards (section
3.3): with running averages over batches of one image, outputs are often blurred or broken. So with norm 'batch' an
output depends on the rest of its batch: apply the net to batches of the size it was trained on. At one image BatchNorm
is instance norm with a scale and a bias. With norm 'instance' each image is by itself.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gormley_vision.layers.gan import (
    Convolution,
    StatelessBatchNorm,
    TransposedConvolution,
    at_least_float32,
    instance_norm,
    leaky_relu,
    normal_weights,
)
from gormley_vision.layers.holes import GatedConvolution, PartialConvolution


class UNet(nn.Module):
    """Images [B, H, W, C] in [-1, 1] to images [B, H, W, out_channels] in [-1, 1].

    With `residual` to what must be added to an image, unbounded: 0 before training, as the last weights are.

    With `convolution` 'gated' or 'partial' those on the way down are such (layers/holes.py), for images with holes;
    'partial' takes the last channel for the mask: above 0 where a pixel is known. Deviation: the way up is as it was.

    `levels` halvings: 8 for 256 pixels, 7 for 128, 5 for 32 end at one pixel. Widths are 1, 2, 4, 8, 8, ... times
    `width`. `norm` is 'instance' (no scale, no bias), 'batch' or 'none'; with BatchNorm only the last convolution has a
    bias.
    """

    out_channels: int = 3
    levels: int = 8
    width: int = 64
    norm: str = "instance"
    dropout: float = 0.5
    convolution: str = "plain"
    residual: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Translate images, in float32 or wider. With `train` the dropout reads the rng 'dropout'.

        The authors leave dropout on at test time, as their only noise: pass `train=True` there for that.

        Raises:
            ValueError: a side is not a multiple of 2**levels.
        """
        multiple = 2**self.levels
        if images.shape[1] % multiple or images.shape[2] % multiple:
            raise ValueError(
                f"a U-Net of {self.levels} levels needs sides that are multiples of {multiple}, "
                f"not {images.shape[1]}x{images.shape[2]}"
            )
        widths = [self.width * min(2**level, 8) for level in range(self.levels)]
        use_bias = self.norm != "batch"
        normalise: dict[str, Callable[[jax.Array], jax.Array]] = {
            "instance": instance_norm,
            "batch": lambda x: StatelessBatchNorm()(x),
            "none": lambda x: x,
        }
        x, known = images.astype(self.dtype), images[..., -1:] > 0
        maps = []
        for level, features in enumerate(widths):
            inputs = "conv_in" if level else "channels"
            x = leaky_relu(x) if level else x
            if self.convolution == "partial":
                x, known = PartialConvolution(features, 4, 2, (1, 1), inputs)(x, known)
            elif self.convolution == "gated":
                x = GatedConvolution(features, 4, 2, (1, 1), lambda x: x, inputs)(x)
            else:
                x = Convolution(features, 4, 2, (1, 1), use_bias, inputs)(x)
            if 0 < level < self.levels - 1:
                x = normalise[self.norm](x)
            maps.append(x)
        for level in reversed(range(1, self.levels)):
            x = TransposedConvolution(widths[level - 1], 4, 2, (1, 1), use_bias=use_bias)(nn.relu(x))
            x = normalise[self.norm](x)
            if 4 <= level < self.levels - 1:  # where the next map is as wide, but the innermost
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = jnp.concatenate([maps[level - 1], x], axis=-1)
        initial = nn.initializers.zeros if self.residual else normal_weights
        last = TransposedConvolution(
            self.out_channels, 4, 2, (1, 1), outputs="channels", use_bias=True, initial=initial
        )
        x = at_least_float32(last(nn.relu(x)))
        return x if self.residual else jnp.tanh(x)
