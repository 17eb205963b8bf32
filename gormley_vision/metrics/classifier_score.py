"""The score of Salimans et al. 2016 (arXiv:1606.03498, section 4) by a classifier; by Inception alone called IS."""

from typing import NamedTuple

import numpy as np


class Score(NamedTuple):
    """Mean and standard deviation over splits; the deviation of one split is NaN."""

    mean: float
    deviation: float


class ClassifierScore:
    """Accumulates probabilities of `count` samples; memory does not grow with their number.

    The score of a split is exp(mean KL(p(y|x) || p(y))): from 1, all samples alike or undecided, to Y, sure and even.
    The original splits 50,000 samples, in order, into ten.
    """

    def __init__(self, count: int, splits: int = 10) -> None:
        self._edges = np.linspace(0, count, min(splits, count) + 1).astype(int)
        self._seen = 0
        self._sums: list[tuple[int, float, np.ndarray | float]] = [(0, 0.0, 0.0)] * (len(self._edges) - 1)

    def add(self, probabilities: np.ndarray) -> None:
        """Add probabilities [n, Y] of the next samples."""
        p = np.asarray(probabilities, np.float64)
        split = np.searchsorted(self._edges, np.arange(self._seen, self._seen + len(p)), "right") - 1
        self._seen += len(p)
        with np.errstate(divide="ignore", invalid="ignore"):
            negative_entropy = np.where(p > 0, p * np.log(p), 0).sum(axis=1)
        for i in np.unique(split):
            own = split == i
            count, total, sums = self._sums[i]
            self._sums[i] = (count + int(own.sum()), total + negative_entropy[own].sum(), sums + p[own].sum(axis=0))

    def result(self) -> Score:
        """Return the score of all splits, which must be complete."""
        scores = []
        for count, total, sums in self._sums:
            mean = np.asarray(sums) / count
            of_mean = np.sum(mean[mean > 0] * np.log(mean[mean > 0]))
            scores.append(float(np.exp(total / count - of_mean)))
        deviation = float(np.std(scores, ddof=0)) if len(scores) > 1 else float("nan")
        return Score(float(np.mean(scores)), deviation)
