"""Losses of style transfer, on feature maps [B, H, W, C] of pictures and of their targets.

Statistics and losses are in at least float32. All are means and not sums, so that a weight means the same for pictures
of any size. Of a style's weight this holds only with the name of the Gram matrices' scale (`gram_loss`).
"""

from typing import Literal

import jax
import jax.numpy as jnp

GRAMS = ("per_position", "per_entry", "gatys")
Gram = Literal["per_position", "per_entry", "gatys"]
EPSILON = 1e-5  # added to a channel's variance, in AdaIN's code


def gram_matrix(features: jax.Array) -> jax.Array:
    """Return the second moments of channels, F^T F / (H W), [B, C, C].

    Gatys et al. 2015 (arXiv:1508.06576), equation 3. Deviation: a mean over positions in place of their sum, so that
    pictures of different sizes can be compared.
    """
    features = _wide(features)
    batch, height, width, channels = features.shape
    rows = features.reshape(batch, height * width, channels)
    return jnp.einsum("bnc,bnd->bcd", rows, rows, precision="highest") / (height * width)


def gram_loss(gram: jax.Array, target: jax.Array, scale: Gram) -> jax.Array:
    """Return the squared distance of two `gram_matrix`es [B, C, C], a mean over the batch.

    - 'per_position': the mean over the C^2 entries (github.com/leongatys/PytorchNeuralStyleTransfer).
    - 'per_entry': the same of matrices over C, as if Gram matrices were divided by C H W: 1 / C^2 of it
      (github.com/jcjohnson/neural-style, pytorch/examples).
    - 'gatys': the sum over 4 C^2 H^2 W^2 of the paper's matrices (equation 4): a quarter of 'per_position'.
    """
    _refuse_unlike(gram, target)
    mean = jnp.mean(jnp.square(gram - target))
    return mean * {"per_position": 1.0, "per_entry": 1.0 / gram.shape[-1] ** 2, "gatys": 0.25}[scale]


def content_loss(features: jax.Array, target: jax.Array) -> jax.Array:
    """Return the mean squared difference of two feature maps [B, H, W, C].

    Johnson et al. 2016 (arXiv:1603.08155), equation 2. Gatys et al. have half of the sum (equation 1).
    """
    _refuse_unlike(features, target)
    return jnp.mean(jnp.square(_wide(features) - _wide(target)))


def total_variation(images: jax.Array) -> jax.Array:
    """Return the mean squared difference of vertical neighbours, plus that of horizontal ones, of [B, H, W, C].

    Mahendran & Vedaldi 2014 (arXiv:1412.0035), section 3, with beta = 2, whose gradient is smooth. Deviation: they sum.
    """
    images = _wide(images)
    down, right = images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]
    return jnp.mean(jnp.square(down)) + jnp.mean(jnp.square(right))


def channel_statistics(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation of each channel over positions, both [B, 1, 1, C].

    The deviation is sqrt(unbiased variance + EPSILON), as in github.com/xunhuang1995/AdaIN-style.

    Raises:
        ValueError: a single position, which has no unbiased variance.
    """
    if features.shape[1] * features.shape[2] < 2:
        raise ValueError(f"a feature map of one position has no deviation: {features.shape}")
    features = _wide(features)
    variance = jnp.var(features, axis=(1, 2), keepdims=True, ddof=1)
    return jnp.mean(features, axis=(1, 2), keepdims=True), jnp.sqrt(variance + EPSILON)


def adaptive_instance_norm(content: jax.Array, style: jax.Array) -> jax.Array:
    """Return content features with the mean and deviation of each of the style's channels: AdaIN.

    Huang & Belongie 2017 (arXiv:1703.06868), equation 8. Of [B, H, W, C] and [B, h, w, C]; sizes may differ.
    """
    mean, deviation = channel_statistics(content)
    style_mean, style_deviation = channel_statistics(style)
    return style_deviation * ((_wide(content) - mean) / deviation) + style_mean


def statistics_loss(features: jax.Array, style: jax.Array) -> jax.Array:
    """Return the mean squared difference of channels' means, plus that of their deviations: equation 13 there."""
    pairs = zip(channel_statistics(features), channel_statistics(style), strict=True)
    return sum((content_loss(*pair) for pair in pairs), start=jnp.float32(0))


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _refuse_unlike(x: jax.Array, target: jax.Array) -> None:
    if x.shape != target.shape:
        raise ValueError(f"shapes {x.shape} and {target.shape} differ")
