"""VGG-19's convolutions: Simonyan & Zisserman 2014 (arXiv:1409.1556), configuration E, for features of pictures.

The weights come from a file of torchvision's `vgg19`, or are random: there is no training here. Layers have the
literature's names, relu1_1 to relu5_4: block, number within it, after the activation. Pooling 'average' takes means in
place of maxima, as Gatys et al. advise (arXiv:1508.06576).
"""

from collections.abc import Collection, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.errors import UserError
from gormley_vision.layers.convolution import convolve
from gormley_vision.models.cifar_resnet import DEVIATION, MEAN

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))  # convolutions, their channels; a pool follows each block
CHANNELS = {f"relu{b}_{i}": width for b, (n, width) in enumerate(BLOCKS, 1) for i in range(1, n + 1)}
LAYERS = tuple(CHANNELS)  # in order
Weights = Mapping[str, np.ndarray]  # 'conv1_1/kernel' [3, 3, in, out] and 'conv1_1/bias' [out]


def up_to(layers: Collection[str]) -> tuple[str, ...]:
    """Return the layers that must be computed for these: all up to the last of them."""
    return LAYERS[: max(map(LAYERS.index, layers)) + 1]


def torchvision_shapes(layers: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array of torchvision's file that these layers need."""
    found: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for layer in up_to(layers):
        name = _torchvision_name(layer)
        found |= {f"{name}.weight": (CHANNELS[layer], inputs, 3, 3), f"{name}.bias": (CHANNELS[layer],)}
        inputs = CHANNELS[layer]
    return found


def from_torchvision(arrays: Mapping[str, np.ndarray], layers: Collection[str]) -> dict[str, np.ndarray]:
    """Return the weights that these layers need, of torchvision's arrays by name."""
    found: dict[str, np.ndarray] = {}
    for layer in up_to(layers):
        name = _torchvision_name(layer)
        kernel = np.asarray(arrays[f"{name}.weight"], np.float32).transpose(2, 3, 1, 0)
        found[_kernel(layer)] = np.ascontiguousarray(kernel)
        found[_bias(layer)] = np.asarray(arrays[f"{name}.bias"], np.float32)
    return found


def random_weights(seed: int, layers: Collection[str]) -> dict[str, np.ndarray]:
    """Return normal kernels of variance 2 / (9 in), which keep the second moment (He et al. 2015), and zero biases.

    A layer's numbers depend on the seed and on its place, not on which other layers are asked for.
    """
    found: dict[str, np.ndarray] = {}
    inputs = 3
    for layer in up_to(layers):
        draw = np.random.default_rng((seed, LAYERS.index(layer)))
        shape = (3, 3, inputs, CHANNELS[layer])
        found[_kernel(layer)] = np.float32(np.sqrt(2 / (9 * inputs))) * draw.standard_normal(shape, np.float32)
        found[_bias(layer)] = np.zeros(CHANNELS[layer], np.float32)
        inputs = CHANNELS[layer]
    return found


def feature_maps(
    weights: Weights,
    images: jax.Array,
    layers: Collection[str],
    pooling: Literal["max", "average"] = "max",
    dtype: jnp.dtype = jnp.float32,
) -> dict[str, jax.Array]:
    """Return {layer: [B, h, w, C]} of images [B, H, W, 3] in [-1, 1]; h and w are halved, rounded down, between blocks.

    Raises:
        UserError: images too small for the deepest layer.
    """
    pool = nn.max_pool if pooling == "max" else nn.avg_pool
    mean, deviation = (jnp.array(x, jnp.float32)[None, None, None] for x in (MEAN, DEVIATION))
    x = (((images + 1) / 2 - mean) / deviation).astype(dtype)
    found: dict[str, jax.Array] = {}
    for layer in up_to(layers):
        if layer.endswith("_1") and layer != LAYERS[0]:
            x = pool(x, (2, 2), (2, 2))
        if 0 in x.shape:
            raise UserError(
                f"images of {images.shape[1]}x{images.shape[2]} pixels are too small for {layer}: take larger ones, or "
                "layers of an earlier block"
            )
        kernel, bias = (jnp.asarray(weights[name], dtype) for name in (_kernel(layer), _bias(layer)))
        x = nn.relu(convolve(x, kernel, stride=1, padding=(1, 1)) + bias[None, None, None])
        if layer in layers:
            found[layer] = x
    return found


def _torchvision_name(layer: str) -> str:
    """Return a convolution's name in torchvision's Sequential, which counts activations and pools, too."""
    place = LAYERS.index(layer)
    pools = int(layer[4]) - 1
    return f"features.{2 * place + pools}"


def _kernel(layer: str) -> str:
    return f"{layer.replace('relu', 'conv')}/kernel"


def _bias(layer: str) -> str:
    return f"{layer.replace('relu', 'conv')}/bias"
