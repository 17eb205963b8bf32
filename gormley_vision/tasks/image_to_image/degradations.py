"""How an input is made from a target, what the net reads of it, and how its output becomes an image: a table.

Images are float32 [B, H, W, C] in [-1, 1] in the degradation's own colour space, which is RGB (or grey) but for
`grey`: that is Lab, L / 50 - 1 and a, b / 110 (Zhang et al. 2016, arXiv:1603.08511), so that a net predicts a and b,
and L stays as it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gormley_vision.augmentation import masks
from gormley_vision.augmentation.degradations import composite, gaussian_blur, jpeg, mean_fill
from gormley_vision.layers.colour import lab_to_rgb, rgb_to_lab
from gormley_vision.layers.resampling import imresize


class Given(NamedTuple):
    """What is known of an image.

    Attributes:
        inputs: what the net reads, [B, h, w, c].
        shown: the image as far as it is known, [B, H, W, C]: what a person would have without a net.
        known: which of its pixels are known, bool [B, H, W, 1]; None where that is no matter of pixels.
    """

    inputs: jax.Array
    shown: jax.Array
    known: jax.Array | None = None


def _unchanged(images: jax.Array) -> jax.Array:
    return images


def _output(given: Given, output: jax.Array) -> jax.Array:
    del given
    return output


class Degradation(NamedTuple):
    """Functions of images in the degradation's colour space."""

    corrupt: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]]  # (key, target): image, known
    given: Callable[[jax.Array, jax.Array | None], Given]  # (image, known), of `corrupt` or of a user
    image: Callable[[Given, jax.Array], jax.Array] = _output  # (given, the net's output)
    from_rgb: Callable[[jax.Array], jax.Array] = _unchanged
    to_rgb: Callable[[jax.Array], jax.Array] = _unchanged
    channels: int = 0  # of the net's output; 0: those of an image
    scale: int = 1  # of the sides, from input to output
    needs_mask: bool = False


def make(name: str, *, scale: int, sigma: float, quality: int) -> Degradation:
    """Return the degradation of that name; `none` is of pairs whose first pictures are images."""
    if name == "none":
        return _of_one_size(lambda key, images: images)
    if name == "downscale":
        return Degradation(
            lambda key, images: (_in_8_bits(imresize(images, 1 / scale)), None),
            lambda image, _: Given(image, imresize(image, scale)),
            scale=scale,
        )
    if name == "grey":
        return Degradation(
            lambda key, images: (images, None),
            lambda image, _: Given(image[..., :1], image * jnp.array([1.0, 0, 0])[None, None, None]),
            lambda given, output: jnp.concatenate([given.inputs, output.astype(jnp.float32)], axis=-1),
            _to_lab,
            _from_lab,
            channels=2,
        )
    if name == "blur":
        return _of_one_size(lambda key, images: gaussian_blur(images, sigma))
    if name == "jpeg":
        return _of_one_size(lambda key, images: jpeg(images, quality))
    return Degradation(
        lambda key, images: (images, MASKS[name](key, images.shape)),
        _with_holes,
        _filled,
        needs_mask=True,
    )


MASKS: dict[str, Callable[..., jax.Array]] = {
    "box": masks.boxes,
    "strokes": masks.brush_strokes,
    "side": masks.one_side,
    "sides": masks.all_sides,
}


def of_classes(count: int) -> Degradation:
    """Return the degradation of pairs whose first pictures are label maps of `count` classes.

    An image is here one number for each class, 1 for that of the pixel and 0 for others, [B, H, W, Y], as `one_hot` of
    the map; a pixel without a class has zeros.
    """
    colours = jnp.stack([_hue(i / count) for i in range(count)])
    return Degradation(
        lambda key, images: (images, None),
        lambda image, _: Given(image, image @ colours),
    )


def _of_one_size(corrupt: Callable[[Any, jax.Array], jax.Array]) -> Degradation:
    return Degradation(lambda key, images: (corrupt(key, images), None), lambda image, _: Given(image, image))


def _in_8_bits(images: jax.Array) -> jax.Array:
    """Round to the 256 levels of a file."""
    return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255) / 127.5 - 1


def _with_holes(image: jax.Array, known: jax.Array | None) -> Given:
    """Holes have the mean colour of what is known; the mask is a last channel, 1 where pixels are known and else -1."""
    assert known is not None
    shown = mean_fill(image, known)
    return Given(jnp.concatenate([shown, jnp.where(known, 1.0, -1.0)], axis=-1), shown, known)


def _filled(given: Given, output: jax.Array) -> jax.Array:
    assert given.known is not None
    return composite(given.shown, output.astype(jnp.float32), given.known)


def _to_lab(images: jax.Array) -> jax.Array:
    lab = rgb_to_lab(images)
    return jnp.concatenate([lab[..., :1] / 50 - 1, lab[..., 1:] / 110], axis=-1)


def _from_lab(images: jax.Array) -> jax.Array:
    return lab_to_rgb(jnp.concatenate([(images[..., :1] + 1) * 50, images[..., 1:] * 110], axis=-1))


def _hue(turn: float) -> jax.Array:
    """Return a colour of the colour circle, [3] in [-1, 1]."""
    return jnp.clip(2 * jnp.abs(2 * ((turn + jnp.array([0.0, 2 / 3, 1 / 3])) % 1) - 1) - 0.5, 0, 1) * 2 - 1
