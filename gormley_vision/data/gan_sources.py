"""Data sets with known modes, for GANs: eight Gaussians on a ring, and three digits as the channels of an image."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gormley_vision.data.array_sources import Arrays, ArraySource, open_mnist_5k
from gormley_vision.data.features import Example, Feature, label_feature
from gormley_vision.data.images import Conversion
from gormley_vision.errors import UserError

MODES, RADIUS, DEVIATION = 8, 2.0, 0.02
RING_LENGTH = 50_000
STACKED_LENGTH = 50_000


def ring_centres() -> np.ndarray:
    """Return the means of the Gaussians, [8, 2], counter-clockwise from (2, 0)."""
    angles = 2 * np.pi * np.arange(MODES) / MODES
    return RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)


class RingSource:
    """Points of eight Gaussians with standard deviation 0.02 on a circle of radius 2: Metz et al. 2016 (1611.02163).

    Example i is a function of i: of Gaussian i mod 8, which is its label.
    """

    def __init__(self) -> None:
        self.class_names = tuple(map(str, range(MODES)))
        self.features = {"vector": Feature("vector", (2,), "float32"), **label_feature(self.class_names)}
        self.labels = np.arange(RING_LENGTH) % MODES
        self.identity = {"source": "ring", "modes": MODES, "radius": RADIUS, "deviation": DEVIATION}
        self._centres = ring_centres()

    def __len__(self) -> int:
        return RING_LENGTH

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < RING_LENGTH:
            raise IndexError(index)
        noise = np.random.Generator(np.random.Philox(key=int(index))).normal(size=2)
        label = index % MODES
        vector = (self._centres[label] + DEVIATION * noise).astype(np.float32)
        return {"vector": vector, "label": np.array(label, np.int32)}


def open_ring(data: Mapping[str, Any]) -> RingSource:
    """Open the ring of Gaussians; it is one split, 'train'."""
    _require_train("ring", data)
    return RingSource()


def open_stacked_mnist(data: Mapping[str, Any]) -> ArraySource:
    """Open 50,000 images whose three channels are digits of `mnist_5k`, drawn with replacement.

    Stacked MNIST (Che et al. 2016, arXiv:1612.02136, section 3.2): 1,000 modes. The label of digits a, b, c is 'abc'.
    Deviation: 500 images of each digit rather than about 6,000.
    """
    _require_train("stacked_mnist", data)
    if data["channels"] != 3:
        raise UserError("data.source=stacked_mnist has a digit in each channel: --config.data.channels=3")
    grey = {**data, "channels": 1, "source": "mnist_5k"}
    digits = open_mnist_5k(grey)

    def load() -> Arrays:
        found = digits.arrays
        assert found.labels is not None
        draws = np.random.Generator(np.random.Philox(key=0)).integers(len(found.images), size=(STACKED_LENGTH, 3))
        images = np.moveaxis(found.images[draws][..., 0], 1, -1)
        labels = found.labels[draws].astype(np.int64) @ np.array([100, 10, 1])
        return Arrays(np.ascontiguousarray(images), labels, tuple(f"{mode:03d}" for mode in range(1000)))

    identity = {**digits.identity, "source": "stacked_mnist", "length": STACKED_LENGTH}
    identity["decode"] = {**identity["decode"], "channels": 3}
    return ArraySource(identity, load, Conversion.of(data))


def _require_train(source: str, data: Mapping[str, Any]) -> None:
    if data["split"] != "train":
        raise UserError(f"{source} is one split, 'train'; it has no {data['split']!r}: --config.data.split=train")
