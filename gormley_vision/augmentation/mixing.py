"""Mixes each image of a batch with another, and their targets. Pure functions; all random draws are from the key.

Mixup (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899) with the choices of timm's
`Mixup` in mode "batch": one draw for the entire batch, and the partner of image i is image B-1-i, so the middle one
of an odd batch is unchanged. Images [B, H, W, C] are floating point and keep their dtype; targets [B, Y] are
distributions, as from `smoothed_targets`, and keep their sum.
"""

import jax
import jax.numpy as jnp


def smoothed_targets(labels: jax.Array, classes: int, smoothing: float) -> jax.Array:
    """Return (1 - s) * one-hot + s / Y, float32 [B, Y] (Szegedy et al. 2015, arXiv:1512.00567, section 7)."""
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing {smoothing} is not in [0, 1]")
    return (1 - smoothing) * jax.nn.one_hot(labels, classes, dtype=jnp.float32) + smoothing / classes


def mixup(key: jax.Array, images: jax.Array, targets: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Return lambda * own + (1 - lambda) * partner's, for images and targets alike, lambda ~ Beta(alpha, alpha)."""
    _check(images, targets, alpha)
    weight = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)
    return _blend(images, weight), _blend(targets, weight)


def cutmix(key: jax.Array, images: jax.Array, targets: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Replace a box of each image by its partner's; targets are weighted by the share of pixels from each.

    The box has sqrt(1 - lambda) of each side, lambda ~ Beta(alpha, alpha), and its centre is any pixel. It is cut off
    at the border, and its sides are rounded down to even numbers, as in the authors' code; the targets' weight is that
    of the actual box (timm's `correct_lam`), not lambda.
    """
    _check(images, targets, alpha)
    size_key, row_key, column_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(size_key, alpha, alpha, dtype=jnp.float32))
    rows = _interval(row_key, side, images.shape[1])
    columns = _interval(column_key, side, images.shape[2])
    box = rows[:, None] & columns[None, :]
    weight = 1 - jnp.mean(box, dtype=jnp.float32)
    return jnp.where(box[None, :, :, None], images[::-1], images), _blend(targets, weight)


def mix(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, mixup_alpha: float, cutmix_alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Apply `mixup` or `cutmix` to the batch, each with probability 1/2; an alpha of 0 turns that one off.

    The alphas are Python numbers. If both are 0, images and targets are returned unchanged.
    """
    if mixup_alpha < 0 or cutmix_alpha < 0:
        raise ValueError(f"alphas {mixup_alpha} and {cutmix_alpha} of mixup and cutmix must be 0 or positive")
    if not mixup_alpha and not cutmix_alpha:
        return images, targets
    if not cutmix_alpha:
        return mixup(key, images, targets, mixup_alpha)
    if not mixup_alpha:
        return cutmix(key, images, targets, cutmix_alpha)
    coin_key, mix_key = jax.random.split(key)
    return jax.lax.cond(
        jax.random.bernoulli(coin_key),
        lambda: mixup(mix_key, images, targets, mixup_alpha),
        lambda: cutmix(mix_key, images, targets, cutmix_alpha),
    )


def _blend(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return weight * x + (1 - weight) * its reverse, computed in float32 or wider, in the dtype of x."""
    return (weight * x + (1 - weight) * x[::-1]).astype(x.dtype)


def _interval(key: jax.Array, fraction: jax.Array, length: int) -> jax.Array:
    """Return which of `length` pixels are in an interval of `fraction` of them around a random pixel: bool [length]."""
    half = jnp.floor(fraction * length).astype(jnp.int32) // 2
    centre = jax.random.randint(key, (), 0, length)
    pixels = jnp.arange(length)
    return (centre - half <= pixels) & (pixels < centre + half)


def _check(images: jax.Array, targets: jax.Array, alpha: float) -> None:
    if not alpha > 0:
        raise ValueError(f"alpha {alpha} of a Beta distribution is not positive")
    for name, array in {"images": images, "targets": targets}.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"a mean of {array.dtype} {name} would be rounded: pass floating point")
    if images.ndim != 4 or targets.ndim != 2 or images.shape[0] != targets.shape[0]:
        raise ValueError(f"images {images.shape} and targets {targets.shape} are not [B, H, W, C] and [B, Y]")
