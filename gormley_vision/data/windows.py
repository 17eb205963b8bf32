"""The map of a crop and resize: for pixels, and for whatever else lies on a picture.

Coordinates are continuous: pixel i covers [i, i + 1).
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """Pixels `start` to `start + length` of one axis, resized to `resized`, of which `size` are kept from `cut` on."""

    start: int
    length: int
    resized: int
    cut: int
    size: int

    def moved(self, coordinates: np.ndarray) -> np.ndarray:
        """Where these coordinates of the picture come to lie, inside the new one or outside."""
        return (coordinates - self.start) * (self.resized / self.length) - self.cut

    def nearest(self) -> np.ndarray:
        """Which pixel of the picture the centre of each new pixel lies in: int [size]."""
        # (i + cut + 1/2) * length / resized in integers: a centre on the edge of two pixels is the second's.
        return self.start + (2 * (np.arange(self.size) + self.cut) + 1) * self.length // (2 * self.resized)


@dataclass(frozen=True)
class Window:
    """A crop and resize of a picture, axis by axis."""

    x: Axis
    y: Axis

    def label_map(self, classes: np.ndarray) -> np.ndarray:
        """A label map [H, W, ...] by nearest neighbour: [size, size, ...]."""
        return classes[self.y.nearest()[:, None], self.x.nearest()]

    def points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [K, 2] moved, float32, and whether each lies in the new picture, bool [K]."""
        moved = np.stack([self.x.moved(points[:, 0]), self.y.moved(points[:, 1])], -1)
        inside: np.ndarray = np.all((moved >= 0) & (moved <= [self.x.size, self.y.size]), axis=-1)
        return moved.astype(np.float32), inside

    def boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [K, 4] moved and clipped to the new picture, float32, and whether anything is left, bool [K]."""
        corners = np.concatenate([self.points(boxes[:, :2])[0], self.points(boxes[:, 2:])[0]], -1)
        size = np.array([self.x.size, self.y.size] * 2, np.float32)
        clipped = np.clip(corners, 0, size)
        left: np.ndarray = np.all(clipped[:, 2:] > clipped[:, :2], axis=-1)
        return clipped, left


def window_of(width: int, height: int, size: int, crop: str, crop_fraction: float) -> Window:
    """The window of `images.to_uint8` on a picture, [size, size] when it is through."""
    if crop == "center":
        side = min(width, height)
        return Window(*(Axis((length - side) // 2, side, size, 0, size) for length in (width, height)))
    if crop == "none":
        return Window(Axis(0, width, size, 0, size), Axis(0, height, size, 0, size))
    # "resize_center": timm's shorter side, torchvision's longer, and the offsets of torchvision's CenterCrop.
    short, least = math.floor(size / crop_fraction), min(width, height)
    lengths = {length: short if length == least else int(short * length / least) for length in (width, height)}
    return Window(*(Axis(0, n, lengths[n], round((lengths[n] - size) / 2.0), size) for n in (width, height)))
