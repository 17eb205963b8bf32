"""Crops and resizes examples: images, and label maps, boxes and points on them by the same map."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from gormley_vision.data.features import Example, Feature, Features
from gormley_vision.data.images import Conversion, from_array
from gormley_vision.data.windows import Window
from gormley_vision.errors import UserError


def convert(example: Mapping[str, Any], features: Features, conversion: Conversion) -> Example:
    """Crop and resize an example, and pad its rows.

    Args:
        example: images as Pillow images or uint8 [H, W] or [H, W, C], label maps [H, W], boxes [k, 4] and points [k, 2]
          in their pixels, all of one height and width; other features are unchanged. An array with a mask may have
          fewer rows than its feature; the mask is made if the example has none.
        features: of the result; images have the conversion's size.
        conversion: gives the size, crop and filter for images. Label maps use the nearest pixel. Boxes are clipped to
          the cropped picture; boxes and points outside of it are removed from their masks.

    Returns:
        An array for each feature, of its shape and dtype. Masked boxes and points are zeros.

    Raises:
        UserError: an image cannot be converted, pictures differ in size, or there are more rows than in the feature.
        ValueError: boxes or points without a picture.
    """
    window = _window(example, features, conversion)
    result: Example = {}
    valid = {name: _valid_rows(name, example, features) for name, feature in features.items() if feature.kind == "mask"}
    for name, feature in features.items():
        if feature.kind == "image":
            image = example[name] if isinstance(example[name], Image.Image) else from_array(np.asarray(example[name]))
            result[name] = dataclasses.replace(conversion, channels=feature.shape[-1])(image)
        elif feature.kind == "label_map":
            result[name] = window.label_map(np.asarray(example[name])).astype(feature.dtype)
        elif feature.kind in ("boxes", "points"):
            rows = _padded(name, example[name], feature)
            result[name], left = window.boxes(rows) if feature.kind == "boxes" else window.points(rows)
            if feature.mask:
                valid[feature.mask] &= left
        elif feature.kind != "mask":
            result[name] = _padded(name, example[name], feature)
    for name, feature in features.items():
        if feature.mask and feature.kind in ("boxes", "points"):
            result[name][~valid[feature.mask]] = 0
    return {name: result[name] if name in result else valid[name] for name in features}


def _window(example: Mapping[str, Any], features: Features, conversion: Conversion) -> Window:
    sizes = {name: _size(example[name]) for name, f in features.items() if f.kind in ("image", "label_map")}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {width} x {height}" for name, (width, height) in sizes.items())
        raise UserError(f"pictures of one example differ in size: {found}; make them alike")
    if not sizes:
        raise ValueError(f"no picture among {list(features)}")
    return conversion.window(*next(iter(sizes.values())))


def _size(picture: Any) -> tuple[int, int]:
    return picture.size if isinstance(picture, Image.Image) else (np.shape(picture)[1], np.shape(picture)[0])


def _valid_rows(mask: str, example: Mapping[str, Any], features: Features) -> np.ndarray:
    """Return which rows are valid, by the example's mask, or without one by the number of rows in its features."""
    count = features[mask].shape[0]
    if mask in example:
        return _padded(mask, example[mask], features[mask])
    rows = {len(example[name]) for name, feature in features.items() if feature.mask == mask}
    if len(rows) != 1:
        raise UserError(
            f"features with the mask {mask!r} have {sorted(rows)} rows: give all the same number, or give the mask"
        )
    return np.arange(count) < rows.pop()


def _padded(name: str, rows: Any, feature: Feature) -> np.ndarray:
    """Convert to the feature's dtype, and pad with rows of zeros if the feature has a mask."""
    array = np.array(rows, feature.dtype)
    if not (feature.mask or feature.kind == "mask"):
        return array
    missing = feature.shape[0] - len(array)
    if missing < 0:
        raise UserError(
            f"{name!r} has {len(array)} rows, but its feature has only {feature.shape[0]}: increase its shape"
        )
    row = feature.shape[1:]
    return np.concatenate([array.reshape(-1, *row), np.zeros((missing, *row), feature.dtype)])
