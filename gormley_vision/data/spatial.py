"""Examples as they lie in files, cropped and resized: images, and all that lies on them by the same map."""

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
        in pixels of these, all of one height and width; other features as they are. What has a mask may have fewer
        rows than its feature, whose mask is made where the example has none.
      features: of the result; images have the conversion's size.
      conversion: by whose filter images are resized. Label maps take the nearest pixel. Boxes are clipped to what is
        left of the picture; those of which nothing is left, and points outside, are taken out of their masks.

    Returns:
      An array for each feature, of its shape and dtype. Boxes and points that are not there are zeros.

    Raises:
      UserError: an image that cannot be converted, pictures of several sizes, or more rows than the feature has.
      ValueError: boxes or points without a picture.
    """
    window = _window(example, features, conversion)
    result: Example = {}
    there = {name: _rows_there(name, example, features) for name, feature in features.items() if feature.kind == "mask"}
    for name, feature in features.items():
        if feature.kind == "image":
            image = example[name] if isinstance(example[name], Image.Image) else from_array(np.asarray(example[name]))
            result[name] = dataclasses.replace(conversion, channels=feature.shape[-1])(image)
        elif feature.kind == "label_map":
            result[name] = window.label_map(np.asarray(example[name])).astype(feature.dtype)
        elif feature.kind in ("boxes", "points"):
            rows = _filled_up(name, example[name], feature)
            result[name], left = window.boxes(rows) if feature.kind == "boxes" else window.points(rows)
            if feature.mask:
                there[feature.mask] &= left
        elif feature.kind != "mask":
            result[name] = _filled_up(name, example[name], feature)
    for name, feature in features.items():
        if feature.mask and feature.kind in ("boxes", "points"):
            result[name][~there[feature.mask]] = 0
    return {name: result[name] if name in result else there[name] for name in features}


def _window(example: Mapping[str, Any], features: Features, conversion: Conversion) -> Window:
    sizes = {name: _size(example[name]) for name, f in features.items() if f.kind in ("image", "label_map")}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {width} x {height}" for name, (width, height) in sizes.items())
        raise UserError(f"pictures that lie on each other differ in size: {found}; make them alike")
    if not sizes:
        raise ValueError(f"no picture among {list(features)}")
    return conversion.window(*next(iter(sizes.values())))


def _size(picture: Any) -> tuple[int, int]:
    return picture.size if isinstance(picture, Image.Image) else (np.shape(picture)[1], np.shape(picture)[0])


def _rows_there(mask: str, example: Mapping[str, Any], features: Features) -> np.ndarray:
    """Which rows a mask says are there; without one in the example, as many as its features have."""
    count = features[mask].shape[0]
    if mask in example:
        return _filled_up(mask, example[mask], features[mask])
    rows = {len(example[name]) for name, feature in features.items() if feature.mask == mask}
    if len(rows) != 1:
        raise UserError(f"features with the mask {mask!r} have {sorted(rows)} rows: give all as many, or give the mask")
    return np.arange(count) < rows.pop()


def _filled_up(name: str, rows: Any, feature: Feature) -> np.ndarray:
    """The array with its feature's dtype, and with zeros below where it has rows that may lack."""
    array = np.array(rows, feature.dtype)
    if not (feature.mask or feature.kind == "mask"):
        return array
    missing = feature.shape[0] - len(array)
    if missing < 0:
        raise UserError(
            f"{name!r} has {len(array)} rows, and its feature room for {feature.shape[0]}: make room for all"
        )
    row = feature.shape[1:]
    return np.concatenate([array.reshape(-1, *row), np.zeros((missing, *row), feature.dtype)])
