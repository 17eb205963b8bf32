"""Whole examples mirrored, shifted and cropped: one draw an example moves its images, label maps, boxes and points.

A batch is {name: [B, *shape]}, described by its features (gormley_vision/data/features.py). Images are what the
functions of `geometry` make of them with the same key. Boxes are cut off at the picture's border; of those of which
nothing is left, and of points outside, the masks are cleared. Rows that are not there are zeros.
"""

import jax
import jax.numpy as jnp

from gormley_vision.augmentation import geometry
from gormley_vision.data.features import Features

Batch = dict[str, jax.Array]


def flip_half(key: jax.Array, batch: Batch, features: Features) -> Batch:
    """Mirror each example left to right with probability 1/2; points change places as their `flip_pairs` say."""
    count, (_, width) = _sizes(batch, features)
    mirrored = geometry.draw_mirrored(key, count)
    upright = jnp.zeros(count)
    scale = jnp.stack([jnp.where(mirrored, -1.0, 1.0), upright + 1], -1)
    offset = jnp.stack([jnp.where(mirrored, float(width), 0.0), upright], -1)
    batch = _pictures(batch, features, lambda images, _: geometry.flip_half(key, images))
    return _exchanged(_moved(batch, features, scale, offset), features, mirrored)


def shift(key: jax.Array, batch: Batch, features: Features, pixels: int) -> Batch:
    """Move each example by -pixels ... pixels along both axes; a label map's `fill` moves in, and zeros into images."""
    if pixels == 0:
        return batch
    count, _ = _sizes(batch, features)
    corners = geometry.draw_corners(key, count, pixels)
    offset = pixels - corners[:, ::-1].astype(jnp.float32)  # x before y
    batch = _pictures(batch, features, lambda images, fill: geometry.shift(key, images, pixels, fill))
    return _moved(batch, features, jnp.ones((count, 2)), offset)


def random_resized_crop(key: jax.Array, batch: Batch, features: Features, min_area: float) -> Batch:
    """A rectangle of each example, enlarged to all of it; label maps take the nearest pixel."""
    count, size = _sizes(batch, features)
    sides, corners = geometry.draw_rectangles(key, count, min_area)
    height_width = jnp.array([size], jnp.float32)

    def nearest(classes: jax.Array, side: jax.Array, corner: jax.Array) -> jax.Array:
        at = [
            jnp.clip(jnp.floor((jnp.arange(n) + 0.5) * side[i] + corner[i] * n).astype(jnp.int32), 0, n - 1)
            for i, n in enumerate(size)
        ]
        return classes[at[0][:, None], at[1][None, :]]

    moved = {}
    for name, feature in features.items():
        if feature.kind == "image":
            moved[name] = geometry.random_resized_crop(key, batch[name], min_area)
        elif feature.kind == "label_map":
            moved[name] = jax.vmap(nearest)(batch[name], sides, corners)
    scale, offset = 1 / sides, -corners / sides * height_width
    return _moved(batch | moved, features, scale[:, ::-1], offset[:, ::-1])


def _sizes(batch: Batch, features: Features) -> tuple[int, tuple[int, int]]:
    """B, and the height and width that all pictures of the batch have."""
    shapes = {batch[name].shape[:3] for name, feature in features.items() if feature.kind in ("image", "label_map")}
    if len(shapes) != 1:
        raise ValueError(f"pictures {sorted(shapes)} are not of one size: all of an example is moved together")
    count, height, width = shapes.pop()
    return count, (height, width)


def _pictures(batch: Batch, features: Features, move) -> Batch:
    """The batch with `move(images [B, H, W, C], fill)` for images and label maps."""
    moved = {}
    for name, feature in features.items():
        if feature.kind == "image":
            moved[name] = move(batch[name], 0)
        elif feature.kind == "label_map":
            moved[name] = move(batch[name][..., None], feature.fill)[..., 0]
    return batch | moved


def _moved(batch: Batch, features: Features, scale: jax.Array, offset: jax.Array) -> Batch:
    """The batch with x * scale + offset for the coordinates of boxes and points; both [B, 2], x before y."""
    _, (height, width) = _sizes(batch, features)
    size = jnp.array([width, height], jnp.float32)[None, None]
    moved: Batch = {}
    masks: Batch = {}
    for name, feature in features.items():
        if feature.kind == "boxes":
            corners = batch[name].reshape(len(scale), -1, 2)
            first, second = jnp.split(_mapped(corners, scale, offset).reshape(len(scale), -1, 4), 2, axis=-1)
            first, second = jnp.clip(first, 0, size), jnp.clip(second, 0, size)
            low, high = (
                jnp.minimum(first, second),
                jnp.maximum(first, second),
            )  # a mirrored box has its right side first
            moved[name], left = jnp.concatenate([low, high], -1), jnp.all(high > low, -1)
        elif feature.kind == "points":
            points = _mapped(batch[name], scale, offset)
            moved[name], left = points, jnp.all((points >= 0) & (points <= size), -1)
        else:
            continue
        if feature.mask:
            masks[feature.mask] = masks.get(feature.mask, batch[feature.mask]) & left
    for name in moved:
        if features[name].mask:
            moved[name] = jnp.where(masks[features[name].mask][..., None], moved[name], 0)
    return batch | moved | masks


def _mapped(points: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """Points [B, K, 2], example by example."""
    return points * scale[:, None] + offset[:, None]


def _exchanged(batch: Batch, features: Features, mirrored: jax.Array) -> Batch:
    """The batch with partners exchanged, and their masks, among the points of mirrored examples."""
    moved = {}
    for name, feature in features.items():
        order = list(range(feature.shape[0])) if feature.flip_pairs else []
        for one, other in feature.flip_pairs:
            order[one], order[other] = other, one
        for part in (name, feature.mask) if order and feature.mask else (name,) if order else ():
            array = batch[part]
            of_mirrored = jnp.expand_dims(mirrored, tuple(range(1, array.ndim)))
            moved[part] = jnp.where(of_mirrored, array[:, jnp.array(order)], array)
    return batch | moved
