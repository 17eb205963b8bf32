"""Metrics of nearest neighbours among features: precision and recall, density and coverage, memorisation.

Distances are Euclidean, computed in blocks of rows: memory is that of the features and one block.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

ROWS = 1024  # of a block of distances


class Manifold(NamedTuple):
    """How much of either set lies within the other's balls."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_metrics(real: np.ndarray, fake: np.ndarray, k: int = 3, k_density: int = 5) -> Manifold:
    """Compare real [n, D] and fake [m, D] features. A feature's ball reaches to its k-th nearest neighbour of its set.

    Precision is the share of fakes in any real ball, recall the share of reals in any fake ball (Kynkäänniemi et al.
    2019, arXiv:1904.06991, equations 1 and 2; k = 3). Density is the mean number of real balls around a fake, over k,
    and coverage the share of real balls with a fake inside (Naeem et al. 2020, arXiv:2002.09797, equations 4 and 5;
    k = 5). Of sets with one distribution density is 1 in expectation, and coverage 1 - 2^-k for as many of each.

    Raises:
        ValueError: sets too small for k neighbours.
    """
    if min(len(real), len(fake)) <= max(k, k_density):
        raise ValueError(f"{max(k, k_density)} neighbours need more features: {min(len(real), len(fake))} given")
    radii, fake_radii = neighbour_distances(real, k), neighbour_distances(fake, k)
    density_radii = radii if k == k_density else neighbour_distances(real, k_density)
    precise, inside, recalled, covered = 0, 0, np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, distances in _blocks(fake, real):
        precise += int((distances <= radii).any(axis=1).sum())
        near = distances <= density_radii
        inside += int(near.sum())
        covered |= near.any(axis=0)
        recalled |= (distances <= fake_radii[rows, None]).any(axis=0)
    return Manifold(
        precise / len(fake), float(recalled.mean()), inside / (k_density * len(fake)), float(covered.mean())
    )


def neighbour_distances(features: np.ndarray, k: int) -> np.ndarray:
    """Return each feature's distance to its k-th nearest among the others, [n]."""
    found = np.empty(len(features))
    for rows, distances in _blocks(features, features):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        found[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return found


def nearest(queries: np.ndarray, among: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the k features of `among` [n, D] that are nearest to each of `queries` [m, D], nearest first.

    Returns:
        Their numbers, int [m, k], and distances [m, k].

    Raises:
        ValueError: k > n.
    """
    if k > len(among):
        raise ValueError(f"{k} nearest of {len(among)} features")
    found, distances = np.empty((len(queries), k), int), np.empty((len(queries), k))
    for rows, block in _blocks(queries, among):
        found[rows] = np.argsort(block, axis=1, kind="stable")[:, :k] if k > 1 else block.argmin(axis=1)[:, None]
        distances[rows] = np.take_along_axis(block, found[rows], axis=1)
    return found, distances


def memorised(sample_distances: np.ndarray, held_out_distances: np.ndarray) -> float:
    """Return the probability that a sample is nearer to the training set than a held-out image is; ties count half.

    Both are distances to the nearest training image. 0.5 if samples are as new as held-out images, 1 if copies: the
    Mann-Whitney statistic of Meehan et al. 2020 (arXiv:2004.05675, section 3.1), without their cells.
    """
    held_out = np.sort(held_out_distances)
    below, not_above = (np.searchsorted(held_out, sample_distances, side) for side in ("left", "right"))
    return float(1 - (below + not_above).mean() / 2 / len(held_out))


def _blocks(queries: np.ndarray, among: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of the distances of [m, D] to [n, D]: which rows, and [r, n] in float64."""
    queries, among = np.asarray(queries, np.float64), np.asarray(among, np.float64)
    centre = among.mean(axis=0)  # distances do not change, and less is lost by rounding
    queries, among = queries - centre, among - centre
    norms = np.sum(among**2, axis=1)
    for first in range(0, len(queries), ROWS):
        part = queries[first : first + ROWS]
        squared = np.sum(part**2, axis=1)[:, None] + norms - 2 * part @ among.T
        yield slice(first, first + len(part)), np.sqrt(np.maximum(squared, 0))
