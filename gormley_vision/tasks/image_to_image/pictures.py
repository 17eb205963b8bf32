"""Translates pictures of any size with a trained net, and makes such inputs of pictures, as in training. numpy around.

A picture is uint8 [H, W, C]; where a net's inputs are label maps it is uint8 [H, W].
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.randomness import named_key, run_key
from gormley_vision.tasks.networks import to_unit_range
from gormley_vision.tiling import tiled

if TYPE_CHECKING:
    from gormley_vision.tasks.image_to_image.task import Translation

_SIDES = 64  # sides are filled up to multiples of it, so that a folder of many sizes compiles a few


def translate(
    task: "Translation", state: Any, picture: np.ndarray, known: np.ndarray | None, tile: int, own_size: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the net's picture, uint8 [s H, s W, C], and what is given: the picture without a net, of the same size.

    Where `task.squeezed_to` is a size, the net sees the picture squeezed to it, unless `own_size` or `tile` is given,
    and its output is stretched. Known pixels, and the lightness of what is coloured, stay those of `picture`.

    Args:
        known: bool [H, W], for a net that fills holes.
        tile: side of the parts that are computed one after another, in pixels of `picture`; 0: the default, which is
          the whole picture for a net that halves its maps, and otherwise such that nothing differs but rounding.

    Raises:
        UserError: tiles that are too small for that.
    """
    size, side = picture.shape[:2], task.squeezed_to
    if own_size or tile or size == (side, side) or not side:
        return _at_own_size(task, state, picture, known, tile)
    if known is None:
        made, given = _at_own_size(task, state, resized(picture, (side, side)), None, 0)
    else:
        mean = picture[known].mean(0) if known.any() else 127.5  # what lies under a hole must not run out of it
        clean = np.where(known[..., None], picture, np.round(mean).astype(np.uint8))
        holes = Image.fromarray(np.uint8(255) * ~known).resize((side, side), Image.Resampling.BOX)
        made, given = _at_own_size(task, state, resized(clean, (side, side)), np.asarray(holes) == 0, 0)
    made, given = resized(made, size), resized(given, size)
    return (made, given) if task.source != task.target else _kept(task, picture, known, made)


def _kept(
    task: "Translation", picture: np.ndarray, known: np.ndarray | None, made: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `made` with what is known of `picture` in place of its own, and what is given."""
    height, width = picture.shape[:2]
    more = [(0, -side % _SIDES) for side in (height, width)]
    padded = [np.pad(x, [*more, (0, 0)], mode="edge")[None] for x in (picture, made)]
    holes = None if known is None else np.pad(known, more)[None, ..., None]  # what is added is not known
    both = np.asarray(task.compiled_restoring(*padded, holes))[:, 0, :height, :width]
    return both[0], both[1]


def restored(task: "Translation", pictures: jax.Array, made: jax.Array, known: jax.Array | None) -> jax.Array:
    """Return `made` with what is known of `pictures`, and what is given: [2, B, H, W, C]. Compiled once for a size.

    A pixel depends on no other, but for the mean colour of those that are known.
    """
    degradation = task.degradation
    images, outputs = (degradation.from_rgb(to_unit_range(x)) for x in (pictures, made))
    given = degradation.given(images, known)
    kept = degradation.image(given, outputs[..., -(degradation.channels or outputs.shape[-1]) :])
    return jnp.stack([task.levels(x) for x in (kept, given.shown)]).astype(jnp.uint8)


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 [H, W, C] to (height, width) by Lanczos, a label map [H, W] by the nearest pixel."""
    filter_ = Image.Resampling.NEAREST if picture.ndim == 2 else Image.Resampling.LANCZOS
    image = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
    array = np.asarray(image.resize(size[::-1], filter_))
    return array[..., None] if picture.shape[2:] == (1,) else array


def _at_own_size(
    task: "Translation", state: Any, picture: np.ndarray, known: np.ndarray | None, tile: int
) -> tuple[np.ndarray, np.ndarray]:
    image = picture[..., None] if picture.ndim == 2 else picture
    if known is not None:
        image = np.concatenate([image, known[..., None].astype(np.uint8)], axis=-1)
    height, width = image.shape[:2]
    unit = task.multiple
    image = np.pad(image, [(0, -height % unit), (0, -width % unit), (0, 0)], mode="symmetric")
    function = partial(task.compiled_pictures, state.ema)
    if task.reach is None and tile and (tile % unit or tile < 3 * unit):
        nearest = max(3 * unit, nearest_multiple(tile, unit))
        raise UserError(
            f"--tile={tile}: this net's tiles overlap, and are multiples of {unit} from {3 * unit} on: --tile={nearest}"
        )
    side = tile or (0 if task.reach is None else 2 * task.reach + 64)
    if task.reach is not None and 0 < side <= 2 * task.reach:
        raise UserError(
            f"--tile={tile}: a pixel depends on {task.reach} at each side: --tile={2 * task.reach + 1} or more"
        )
    if not 0 < side < min(image.shape[:2]):  # a whole picture has its own borders; one that is filled up has not
        both = np.asarray(function(image[None]))[0]
    else:
        side = -(-side // unit) * unit
        overlap = max(unit, side // 4 // unit * unit) if task.reach is None else task.reach
        both = tiled(function, image, tile=side, overlap=overlap, scale=task.scale)
    scale = task.scale
    made, given = np.split(both[: scale * height, : scale * width], 2, axis=-1)
    return made, given


def pictures(task: "Translation", variables: Any, images: jax.Array) -> jax.Array:
    """Return pictures and what was given, beside each other, uint8 [b, s h, s w, 2 C]. Compiled once for a size."""
    known = images[..., -1:] > 0 if task.fills else None
    images = images[..., :-1] if task.fills else images
    given = task.degradation.given(task.read(images[..., 0] if task.classes else images), known)
    output: Any = task.generator.apply(variables, given.inputs, train=False)
    made, shown = task.levels(task.image(given, output)), task.levels(given.shown)
    channels = max(made.shape[-1], shown.shape[-1])
    return jnp.concatenate([jnp.broadcast_to(x, (*x.shape[:3], channels)) for x in (made, shown)], -1).astype(jnp.uint8)


def degrade(task: "Translation", target: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the target, cut to sides that the scale divides, an input made of it, and which pixels that knows.

    Random draws depend on `number` alone.
    """
    scale = task.scale
    height, width = (side // scale * scale for side in target.shape[:2])
    target = target[:height, :width]
    picture, known = task.compiled_corruption(named_key(run_key(0), "degrade", number), target[None])
    return target, np.asarray(picture)[0], None if known is None else np.asarray(known)[0, ..., 0]


def corrupted(task: "Translation", key: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Return inputs made of uint8 targets, in 8 bits, and which pixels they know. Compiled once for a size."""
    degradation = task.degradation
    image, known = degradation.corrupt(key, degradation.from_rgb(to_unit_range(targets)))
    if known is None and degradation.scale == 1:
        image = degradation.given(image, None).shown
    return task.levels(image).astype(jnp.uint8), known
