"""ResNets for CIFAR-10 of 6 n + 2 layers: He et al. 2015 (arXiv:1512.03385, section 4.2), option A's shortcuts.

For features of pictures of 32 pixels, with weights trained elsewhere: there is no training here. Names of parameters
are those of PyTorch's ports.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

FEATURES = 64
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's images in [0, 1]
_EPSILON = 1e-5
Arrays = Mapping[str, jax.Array]


def resnet(weights: Arrays, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return pooled features [B, 64] and probabilities [B, 10] of images [B, H, W, 3] in [0, 255]."""
    mean, deviation = (jnp.array(x)[None, None, None] for x in (MEAN, DEVIATION))
    x = (images.astype(jnp.float32) / 255 - mean) / deviation
    x = jax.nn.relu(_normalized(weights, "bn1", _convolved(weights["conv1.weight"], x)))
    for stage in (1, 2, 3):
        for block in range(_blocks(weights, stage)):
            x = _block(weights, f"layer{stage}.{block}", x, stride=2 if stage > 1 and block == 0 else 1)
    features = x.mean(axis=(1, 2))
    return features, jax.nn.softmax(features @ weights["linear.weight"].T + weights["linear.bias"][None])


def shapes(blocks: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a net with that many blocks in each of its three stages."""

    def normalized(name: str, features: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.{part}": (features,) for part in ("weight", "bias", "running_mean", "running_var")}

    found: dict[str, tuple[int, ...]] = {"conv1.weight": (16, 3, 3, 3), **normalized("bn1", 16)}
    found |= {"linear.weight": (10, FEATURES), "linear.bias": (10,)}
    inputs = 16
    for stage, features in ((1, 16), (2, 32), (3, 64)):
        for block in range(blocks):
            for number in (1, 2):
                name = f"layer{stage}.{block}"
                found[f"{name}.conv{number}.weight"] = (features, inputs, 3, 3)
                found |= normalized(f"{name}.bn{number}", features)
                inputs = features
    return found


def _blocks(weights: Arrays, stage: int) -> int:
    return sum(name.startswith(f"layer{stage}.") and name.endswith("conv1.weight") for name in weights)


def _block(weights: Arrays, name: str, x: jax.Array, stride: int) -> jax.Array:
    y = _normalized(weights, f"{name}.bn1", _convolved(weights[f"{name}.conv1.weight"], x, stride))
    y = _normalized(weights, f"{name}.bn2", _convolved(weights[f"{name}.conv2.weight"], jax.nn.relu(y)))
    if more := y.shape[-1] - x.shape[-1]:  # every other pixel, and zeros as the other channels
        x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
    return jax.nn.relu(x + y)


def _convolved(kernel: jax.Array, x: jax.Array, stride: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,) * 2, [(1, 1)] * 2, dimension_numbers=("NHWC", "OIHW", "NHWC")
    )


def _normalized(weights: Arrays, name: str, x: jax.Array) -> jax.Array:
    scale, bias, mean, var = (
        weights[f"{name}.{part}"][None, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) * (scale / jnp.sqrt(var + _EPSILON)) + bias
