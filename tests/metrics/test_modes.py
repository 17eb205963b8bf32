"""Mode counts and their divergence, by hand."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from gormley_vision.data.gan_sources import ring_centres
from gormley_vision.metrics.modes import mode_counts, near_centres, reverse_kl

ROOT = Path(__file__).parents[2]


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


def test_the_script_counts_gaussians_and_stacked_digits():
    """All samples on two of eight centres; and images whose channels' first pixels are their digits."""
    script = runpy.run_path(str(ROOT / "scripts" / "mode_coverage.py"))
    centres = ring_centres()
    found = script["ring"](np.concatenate([centres[[0, 0, 3]], [[0.0, 0.0]]]))
    assert (found["modes"], found["near"]) == (2, 0.75)
    assert found["reverse_kl"] == pytest.approx(np.log(8) - np.log(3) + 2 / 3 * np.log(2), abs=1e-4)
    images = np.zeros((3, 28, 28, 3))
    images[:, 0, 0] = [[1, 2, 3], [1, 2, 3], [9, 9, 9]]
    found = script["stacked"](images, lambda grey: grey[:, 0, 0, 0].astype(int))
    assert found == {"modes": 2, "reverse_kl": pytest.approx(np.log(1000) - np.log(3) + 2 / 3 * np.log(2), abs=1e-4)}
