"""The map of a crop and resize: for pixels, label maps, points and boxes.

Coordinates are continuous: pixel i covers [i, i + 1).
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One axis: pixels `start` to `start + length`, resized to `resized`, of which `size` from `cut` on are kept."""

    start: int
    length: int
    resized: int
    cut: int
    size: int

    def moved(self, coordinates: np.ndarray) -> np.ndarray:
        """Map coordinates of the picture to the new one; they may be outside."""
        return (coordinates - self.start) * (self.resized / self.length) - self.cut

    def nearest(self) -> np.ndarray:
        """Return the pixel of the picture that contains the centre of each new pixel: int [size]."""
        # (i + cut + 1/2) * length / resized in integers: a centre on the edge of two pixels belongs to the second.
        return self.start + (2 * (np.arange(self.size) + self.cut) + 1) * self.length // (2 * self.resized)


@dataclass(frozen=True)
class Window:
    """A crop and resize of a picture, axis by axis."""

    x: Axis
    y: Axis

    def label_map(self, classes: np.ndarray) -> np.ndarray:
        """Map a label map [H, W, ...] by nearest neighbour: [size, size, ...]."""
        return classes[self.y.nearest()[:, None], self.x.nearest()]

    def points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points [K, 2], float32; also returns whether each is in the new picture, bool [K]."""
        moved = np.stack([self.x.moved(points[:, 0]), self.y.moved(points[:, 1])], -1)
        inside: np.ndarray = np.all((moved >= 0) & (moved <= [self.x.size, self.y.size]), axis=-1)
        return moved.astype(np.float32), inside

    def boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map boxes [K, 4] and clip them to the new picture, float32; also returns whether any are left, bool [K]."""
        corners = np.concatenate([self.points(boxes[:, :2])[0], self.points(boxes[:, 2:])[0]], -1)
        size = np.array([self.x.size, self.y.size] * 2, np.float32)
        clipped = np.clip(corners, 0, size)
        left: np.ndarray = np.all(clipped[:, 2:] > clipped[:, :2], axis=-1)
        return clipped, left


def window_of(width: int, height: int, size: int, crop: str, crop_fraction: float) -> Window:
    """Return the window of `images.to_uint8` for a picture; the result is [size, size]."""
    if crop == "center":
        side = min(width, height)
        return Window(*(Axis((length - side) // 2, side, size, 0, size) for length in (width, height)))
    if crop == "none":
        return Window(Axis(0, width, size, 0, size), Axis(0, height, size, 0, size))
    # "resize_center": timm's shorter side, torchvision's longer, and the offsets of torchvision's CenterCrop.
    short, least = math.floor(size / crop_fraction), min(width, height)
    lengths = {length: short if length == least else int(short * length / least) for length in (width, height)}
    return Window(*(Axis(0, n, lengths[n], round((lengths[n] - size) / 2.0), size) for n in (width, height)))
