"""Parts of a split, in TFDS's notation, "train[:80%]", and taken from one shuffled order.

Many data sets are sorted by class. Therefore a part's positions refer to a shuffled order, which depends only on the
number of examples: both sides of a cut have all classes, whatever the run's seed, and together they are the split.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from gormley_vision.data.features import Example
from gormley_vision.data.order import epoch_permutation
from gormley_vision.errors import UserError

if TYPE_CHECKING:
    from gormley_vision.data.sources import Source

# Saved in a part's identity. Changing it would move examples between the two sides of all existing cuts.
SHUFFLE_SEED = 0x5011CE
_BOUND = r"-?\d[\d_]*(?:\.\d+)?%?"
_SPLIT = re.compile(rf"([^\[\]]+)\[({_BOUND})?:({_BOUND})?\]")


class Part:
    """Examples at positions `start` to `stop` of another source's shuffled order."""

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self.class_names = source.class_names
        self.features = source.features
        self.identity = {**source.identity, "part": [start, stop], "part_shuffled_by": SHUFFLE_SEED}
        self._source = source
        self._ids = _shuffled(len(source))[start:stop]

    @property
    def labels(self) -> np.ndarray | None:
        """The part's labels, if the source's are known."""
        labels = self._source.labels
        return None if labels is None else labels[self._ids]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._source[int(self._ids[index])]


def name_of(split: str) -> str:
    """Return the split of a part: "train" for "train[:80%]", and for "train" itself.

    Raises:
        UserError: the brackets are not those of a part.
    """
    if "[" not in split:
        return split
    match = _SPLIT.fullmatch(split)
    if not match or not (match[2] or match[3]):
        raise UserError(
            f"the split {split!r}: a part is written 'train[:4000]', 'train[4000:]', 'train[100:200]', 'train[-500:]' "
            "or 'train[:80%]': --config.data.split='train[:80%]'"
        )
    return match[1]


def bounds(split: str, length: int) -> tuple[int, int]:
    """Return the first position of a part and the one after its last, by TFDS's rules.

    A negative number counts from the end. A percentage is rounded to the nearest example, halves to even.

    Args:
        split: with brackets, such as "train[:80%]".
        length: number of examples in the split.

    Raises:
        UserError: the text is not a part, a bound is out of range, or the part has no examples.
    """
    name = name_of(split)
    match = _SPLIT.fullmatch(split)
    assert match is not None
    start = _position(split, match[2] or "0", length)
    stop = _position(split, match[3], length) if match[3] else length
    if start >= stop:
        raise UserError(
            f"the split {split!r} has no examples: positions {start} to {stop} of the {length} examples of {name}: "
            f"--config.data.split='{name}[:80%]'"
        )
    return start, stop


def _position(split: str, bound: str, length: int) -> int:
    percent = bound.endswith("%")
    number = float(bound.rstrip("%"))
    if not percent and "." in bound:
        raise UserError(f"the split {split!r}: {bound} is not an integer number of examples: write {bound}%")
    if abs(number) > (100 if percent else length):
        has = f"{name_of(split)} has {length} examples" + (", which are 100%" if percent else "")
        raise UserError(f"the split {split!r}: {has}: --config.data.split='{name_of(split)}[:80%]'")
    # Exactly TFDS's formula, so that its parts and ours have the same length.
    position = round(number * length / 100.0) if percent else int(number)
    return position + length if position < 0 else position


def ids(split: str, length: int) -> np.ndarray:
    """Return the examples of a part of a split of `length` examples, in the part's order; all if it is no part."""
    if "[" not in split:
        return np.arange(length)
    start, stop = bounds(split, length)
    return _shuffled(length)[start:stop]


def _shuffled(length: int) -> np.ndarray:
    return epoch_permutation(SHUFFLE_SEED, 0, length)


def take(source: Source, split: str) -> Source:
    """Return the part of `source` that `split` gives; `source` itself if it gives none."""
    return Part(source, *bounds(split, len(source))) if "[" in split else source
