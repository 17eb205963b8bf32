"""Mode counts and their divergence, by hand."""

import numpy as np
import pytest

from gormley_vision.metrics.modes import mode_counts, near_centres, reverse_kl


def test_counts_and_divergence_by_hand():
    counts = mode_counts(np.array([0, 0, 1, 3]), 4)
    assert counts.tolist() == [2, 1, 0, 1]
    assert reverse_kl(counts) == pytest.approx(0.5 * np.log(2))  # 1/2 log 2 + 2 * 1/4 log 1
    assert reverse_kl(np.array([5, 5, 5])) == pytest.approx(0)
    assert reverse_kl(np.array([0, 7, 0, 0])) == pytest.approx(np.log(4))


def test_divergence_of_a_uniform_sample_is_what_the_docstring_says():
    draws = np.random.default_rng(0).integers(1000, size=26_000)
    assert reverse_kl(mode_counts(draws, 1000)) == pytest.approx(999 / 52_000, rel=0.1)


def test_near_means_three_deviations():
    points = np.array([[1.0, 0.29], [1.0, 0.31], [0.0, -1.0]])
    nearest, near = near_centres(points, np.array([[1.0, 0.0], [0.0, -1.0]]), 0.1)
    assert nearest.tolist() == [0, 0, 1]
    assert near.tolist() == [True, False, True]
