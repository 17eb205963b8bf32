"""Matches classes by name, between a data set and what was trained on another."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gormley_vision.data.features import Example, Feature, Features, class_label, class_names_of
from gormley_vision.data.sources import Source
from gormley_vision.errors import UserError, listed


def match_classes(found: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Return the label in `wanted` of each label in `found`, by name: int32 [len(found)]. `wanted` may have more.

    Raises:
          UserError: `wanted` lacks a class, or the data set has no labels.
    """
    if not found:
        raise UserError(f"the data set has no labels, but these classes were trained: {listed(wanted)}")
    if unknown := [name for name in found if name not in wanted]:
        raise UserError(
            f"classes of the data set that were not trained: {listed(unknown)}; trained were {listed(wanted)}. "
            "Classes are matched by name: rename them, or leave them out"
        )
    return np.array([wanted.index(name) for name in found], np.int32)


def with_classes(features: Features, class_names: tuple[str, ...]) -> dict[str, Feature]:
    """Return the features of a labelled set, with other classes."""
    name = class_label(features)
    return {**features, name: dataclasses.replace(features[name], class_names=class_names)}


class Relabelled:
    """A source with its labels converted to other classes, matched by name."""

    def __init__(self, source: Source, class_names: tuple[str, ...]) -> None:
        self._source, self._labels = source, match_classes(class_names_of(source.features), class_names)
        self._label = class_label(source.features)
        self.class_names = class_names
        self.features = with_classes(source.features, class_names)
        self.identity: dict[str, Any] = source.identity

    @property
    def labels(self) -> np.ndarray | None:
        """All labels, as indices of the wanted classes."""
        labels = self._source.labels
        return None if labels is None else self._labels[labels]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._source[index]
        return example | {self._label: np.asarray(self._labels[example[self._label]])}
