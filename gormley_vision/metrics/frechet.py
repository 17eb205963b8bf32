"""Fréchet distance of two sets of features, by their moments: Heusel et al. 2017 (arXiv:1706.08500, equation 6)."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import linalg


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count n, mean [D] and scatter [D, D], the sum of (x - mean)(x - mean)^T, of features, in float64.

    Memory does not grow with n: `moments_of(a).merged(moments_of(b))` has the moments of both.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets (Chan, Golub and LeVeque 1983, "Algorithms for computing the variance")."""
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), scatter)

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance [D, D], over n - 1."""
        return self.scatter / (self.count - 1)


def moments_of(features: np.ndarray) -> Moments:
    """Return the moments of features [n, D]."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), for covariances A and B.

    The root is of a symmetric matrix, so its eigenvalues are real; those below 0 by rounding count as 0. (The
    original's root of A B has the same trace, but is not symmetric.) So does a distance below 0 by rounding.

    Raises:
        ValueError: fewer than two features, which have no covariance.
    """
    if min(a.count, b.count) < 2:
        raise ValueError(f"a covariance needs at least 2 features: {min(a.count, b.count)} given")
    values, vectors = linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = linalg.eigvalsh(root @ b.covariance @ root)
    apart = a.mean - b.mean
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return max(0.0, float(apart @ apart + trace))


class Extrapolation(NamedTuple):
    """A distance's expectation for infinitely many samples, and by how much it changes over 1 / n."""

    limit: float
    slope: float


def extrapolated(counts: Sequence[int], distances: Sequence[float]) -> Extrapolation:
    """Fit distance = limit + slope / n: FID_infinity of Chong & Forsyth 2020 (arXiv:1911.07023, section 3).

    They draw 15 subsets of evenly spaced sizes; here `distances` are of the first n samples for each n of `counts`.

    Raises:
        ValueError: fewer than two counts.
    """
    if len(set(counts)) < 2:
        raise ValueError(f"a line needs at least 2 counts: {len(set(counts))} given")
    slope, limit = np.polyfit(1 / np.asarray(counts, np.float64), np.asarray(distances, np.float64), 1)
    return Extrapolation(float(limit), float(slope))
