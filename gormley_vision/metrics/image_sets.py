"""Figures of a set of images beside real ones, from the features of both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gormley_vision.metrics.classifier_score import ClassifierScore
from gormley_vision.metrics.frechet import Moments, extrapolated, frechet_distance, moments_of
from gormley_vision.metrics.kernel_distance import kernel_distance
from gormley_vision.metrics.neighbours import manifold_metrics

KEPT = 10_000  # features of a set that are kept for figures of pairs
COUNTS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)  # at which the Fréchet distance is also given


class Summary:
    """What is known of `count` images whose features are added in order, in random order of the images.

    Memory does not grow with `count` beyond KEPT features.

    Attributes:
        moments: of all; `by_class` of each label's; `at` of the first n, for each n of COUNTS up to `count`.
        kept: the first features, float32 [min(count, KEPT), D].
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.moments: Moments | None = None
        self.by_class: dict[int, Moments] = {}
        self.at: dict[int, Moments] = {}
        self._marks = [n for n in COUNTS if n < count] + [count]
        self._kept: list[np.ndarray] = []
        self.score = ClassifierScore(count)

    def add(self, features: np.ndarray, probabilities: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Add features [n, D] and probabilities [n, Y] of the next images, and their labels [n]."""
        self.score.add(probabilities)
        while len(features):
            before = self.moments.count if self.moments else 0
            part = slice(0, next(n for n in self._marks if n > before) - before)
            moments = moments_of(features[part])
            self.moments = self.moments.merged(moments) if self.moments else moments
            if self.moments.count in self._marks:
                self.at[self.moments.count] = self.moments
            if before < KEPT:
                self._kept.append(np.array(features[part][: KEPT - before], np.float32))
            if labels is not None:
                for label in np.unique(labels[part]).tolist():
                    of_class = moments_of(features[part][labels[part] == label])
                    known = self.by_class.get(label)
                    self.by_class[label] = known.merged(of_class) if known else of_class
                labels = labels[part.stop :]
            features = features[part.stop :]

    @property
    def kept(self) -> np.ndarray:
        """The first features, float32 [min(count, KEPT), D]."""
        return np.concatenate(self._kept)


def distance(real: Summary, fake: Summary) -> float:
    """Return the Fréchet distance of all features."""
    assert real.moments is not None
    assert fake.moments is not None
    return frechet_distance(fake.moments, real.moments)


def figures(real: Summary, fake: Summary) -> dict[str, Any]:
    """Return the figures of `fake`; intervals and deviations stand beside their means."""
    assert real.moments is not None
    by_count = {n: frechet_distance(moments, real.moments) for n, moments in fake.at.items()}
    kernel, manifold, score = kernel_distance(real.kept, fake.kept), None, fake.score.result()
    if min(len(real.kept), len(fake.kept)) > 5:
        manifold = manifold_metrics(real.kept, fake.kept)
    return {
        "frechet_distance": by_count[fake.count],
        "frechet_distance_by_count": {str(n): value for n, value in by_count.items()},
        "frechet_distance_extrapolated": extrapolated(list(by_count), list(by_count.values())).limit
        if len(by_count) > 2
        else None,
        "kernel_distance": kernel.mean,
        "kernel_distance_half_width": _number(kernel.half_width),
        **(manifold._asdict() if manifold else {}),
        "classifier_score": score.mean,
        "classifier_score_deviation": _number(score.deviation),
    }


def by_class(real: Summary, fake: Summary, class_names: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Return the Fréchet distance of each class that both sets have, of two images or more."""
    found = {}
    for label in sorted(real.by_class.keys() & fake.by_class.keys()):
        a, b = real.by_class[label], fake.by_class[label]
        if min(a.count, b.count) > 1:
            counts = {"real": a.count, "fake": b.count}
            found[class_names[label]] = {"frechet_distance": frechet_distance(b, a), **counts}
    return found


def _number(value: float) -> float | None:
    """Return None for NaN, which JSON lacks."""
    return None if np.isnan(value) else value
