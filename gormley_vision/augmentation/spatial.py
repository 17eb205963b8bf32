"""Mirrors, shifts and crops examples: one random draw moves an example's images, label maps, boxes and points.

A batch is {name: [B, *shape]}, described by its features (gormley_vision/data/features.py). Images change as by the
functions of `geometry` with the same key. Boxes are clipped to the picture; boxes and points outside of it are removed
from their masks. Masked rows are zeros.
"""

import jax
import jax.numpy as jnp

from gormley_vision.augmentation import geometry
from gormley_vision.data.features import Features

Batch = dict[str, jax.Array]


def flip_half(key: jax.Array, batch: Batch, features: Features) -> Batch:
    """Mirror each example left to right with probability 1/2; points are exchanged by their `flip_pairs`."""
    count, (_, width) = _sizes(batch, features)
    mirrored = geometry.draw_mirrored(key, count)
    zeros = jnp.zeros(count)
    scale = jnp.stack([jnp.where(mirrored, -1.0, 1.0), zeros + 1], -1)
    offset = jnp.stack([jnp.where(mirrored, float(width), 0.0), zeros], -1)
    batch = _pictures(batch, features, lambda images, _: geometry.flip_half(key, images))
    return _exchanged(_moved(batch, features, scale, offset), features, mirrored)


def shift(key: jax.Array, batch: Batch, features: Features, pixels: int) -> Batch:
    """Move each example by -pixels ... pixels along both axes; pads label maps with `fill`, and images with zeros."""
    if pixels == 0:
        return batch
    count, _ = _sizes(batch, features)
    corners = geometry.draw_corners(key, count, pixels)
    offset = pixels - corners[:, ::-1].astype(jnp.float32)  # x before y
    batch = _pictures(batch, features, lambda images, fill: geometry.shift(key, images, pixels, fill))
    return _moved(batch, features, jnp.ones((count, 2)), offset)


def random_resized_crop(key: jax.Array, batch: Batch, features: Features, min_area: float) -> Batch:
    """Crop a rectangle of each example and resize it to full size; label maps use the nearest pixel."""
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
    """Return B, and the height and width of all pictures in the batch."""
    shapes = {batch[name].shape[:3] for name, feature in features.items() if feature.kind in ("image", "label_map")}
    if len(shapes) != 1:
        raise ValueError(f"pictures {sorted(shapes)} are not of one size: all pictures of an example move together")
    count, height, width = shapes.pop()
    return count, (height, width)


def _pictures(batch: Batch, features: Features, move) -> Batch:
    """Apply `move(images [B, H, W, C], fill)` to the batch's images and label maps."""
    moved = {}
    for name, feature in features.items():
        if feature.kind == "image":
            moved[name] = move(batch[name], 0)
        elif feature.kind == "label_map":
            moved[name] = move(batch[name][..., None], feature.fill)[..., 0]
    return batch | moved


def _moved(batch: Batch, features: Features, scale: jax.Array, offset: jax.Array) -> Batch:
    """Map coordinates of boxes and points to x * scale + offset, which are both [B, 2], x before y."""
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
    """Map points [B, K, 2], example by example."""
    return points * scale[:, None] + offset[:, None]


def _exchanged(batch: Batch, features: Features, mirrored: jax.Array) -> Batch:
    """Exchange the `flip_pairs`, and their masks, of the points of mirrored examples."""
    moved = {}
    for name, feature in features.items():
        order = list(range(feature.shape[0])) if feature.flip_pairs else []
        for one, other in feature.flip_pairs:
            order[one], order[other] = other, one
        for part in (name, feature.mask) if order and feature.mask else (name,) if order else ():
            array = batch[part]
            is_mirrored = jnp.expand_dims(mirrored, tuple(range(1, array.ndim)))
            moved[part] = jnp.where(is_mirrored, array[:, jnp.array(order)], array)
    return batch | moved
