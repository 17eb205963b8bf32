"""Fréchet and kernel distances, neighbours and scores, by closed forms and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gormley_vision.metrics.classifier_score import ClassifierScore
from gormley_vision.metrics.frechet import Moments, extrapolated, frechet_distance, moments_of
from gormley_vision.metrics.kernel_distance import kernel_distance, squared_mmd
from gormley_vision.metrics.neighbours import manifold_metrics, memorised, nearest, neighbour_distances


def gaussian(mean, covariance, count=1001):
    return Moments(count, np.array(mean, float), np.array(covariance, float) * (count - 1))


# ---------------------------------------------------------------------------------------------------------
# Fréchet distance.


def test_distance_of_gaussians_that_share_axes():
    # (3 - 1)^2 + (sqrt(4) - sqrt(1))^2 + (sqrt(9) - sqrt(25))^2
    a, b = gaussian([3, 0], [[4, 0], [0, 9]]), gaussian([1, 0], [[1, 0], [0, 25]])
    assert frechet_distance(a, b) == pytest.approx(4 + 1 + 4, rel=1e-12)


def test_distance_of_turned_gaussians_in_the_plane():
    # tr(root of AB) in two dimensions is sqrt(tr(AB) + 2 sqrt(det AB)).
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.5, -0.4], [-0.4, 3.0]])
    root = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a @ b)))
    wanted = np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(gaussian([0, 0], a), gaussian([0, 0], b)) == pytest.approx(wanted, rel=1e-12)


def test_singular_covariances_have_a_distance():
    line, other = gaussian([0, 0, 0], np.diag([1.0, 0, 0])), gaussian([0, 0, 0], np.diag([0, 4.0, 0]))
    assert frechet_distance(line, other) == pytest.approx(5)
    assert frechet_distance(line, line) == pytest.approx(0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 99))
def test_moments_in_parts_are_those_of_the_whole(parts, seed):
    features = np.random.default_rng(seed).normal(size=(sum(parts), 3)).astype(np.float32) * 7 + 1e4
    moments, first = None, 0
    for part in parts:
        more = moments_of(features[first : first + part])
        moments, first = more if moments is None else moments.merged(more), first + part
    whole = features.astype(np.float64)
    assert moments.count == len(whole)
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.scatter / len(whole), np.cov(whole.T, bias=True), rtol=1e-7, atol=1e-7)


def test_a_set_is_at_no_distance_from_itself_and_never_below():
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(8, 30)) * 100
        assert 0 <= frechet_distance(moments_of(x), moments_of(x)) < 1e-2


def test_a_covariance_needs_two_features():
    with pytest.raises(ValueError, match="at least 2 features: 1 given"):
        frechet_distance(moments_of(np.ones((1, 2))), moments_of(np.ones((5, 2))))


def test_a_line_over_one_over_n_is_extended_to_infinity():
    counts = [1000, 2000, 5000]
    assert extrapolated(counts, [3 + 500 / n for n in counts]) == pytest.approx((3, 500))
    with pytest.raises(ValueError, match="at least 2 counts"):
        extrapolated([5, 5], [1, 1])


def test_the_bias_of_few_samples_is_what_extrapolation_removes():
    draw = np.random.default_rng(0)
    reference, features = gaussian(np.zeros(8), np.eye(8), 10**6), draw.normal(size=(6400, 8))
    counts = [100, 200, 400, 800, 1600, 3200, 6400]
    distances = [frechet_distance(moments_of(features[:n]), reference) for n in counts]
    assert distances[0] > 0.2
    assert abs(extrapolated(counts, distances).limit) < 0.02


# ---------------------------------------------------------------------------------------------------------
# Kernel distance.


def test_squared_mmd_by_hand():
    a, b = np.array([[1.0], [2.0]]), np.array([[0.0], [-1.0]])
    within_a, within_b = (1 * 2 + 1) ** 3, (0 * -1 + 1) ** 3
    between = np.mean([(0 + 1) ** 3, (-1 + 1) ** 3, (0 + 1) ** 3, (-2 + 1) ** 3])
    assert squared_mmd(a, b) == within_a + within_b - 2 * between


def test_it_is_unbiased_and_its_interval_covers():
    draw = np.random.default_rng(0)
    estimates = [kernel_distance(*draw.normal(size=(2, 200, 4)), block=20) for _ in range(300)]
    means = np.array([e.mean for e in estimates])
    assert abs(means.mean()) < 3 * means.std() / math.sqrt(300)
    covered = np.mean([abs(e.mean) <= e.half_width for e in estimates])
    assert 0.9 < covered < 0.98


def test_one_block_has_no_interval():
    draw = np.random.default_rng(0)
    assert math.isnan(kernel_distance(draw.normal(size=(15, 2)), draw.normal(size=(19, 2)), block=10).half_width)
    with pytest.raises(ValueError, match="at least 2"):
        kernel_distance(np.ones((1, 2)), np.ones((9, 2)))


# ---------------------------------------------------------------------------------------------------------
# Neighbours.


def test_manifolds_by_hand():
    real, fake = np.array([[0.0], [1], [2], [10]]), np.array([[0.5], [1.2], [30], [31]])
    # k = 1: real radii 1, 1, 1, 8; fake radii 0.7, 0.7, 1, 1.
    found = manifold_metrics(real, fake, k=1, k_density=1)
    assert found.precision == 0.5  # 0.5 and 1.2 are in balls
    assert found.recall == 0.5  # 0 and 1 are in the balls of 0.5 or 1.2; 2 is 0.8 away
    assert found.density == (2 + 2) / 4  # 0.5 is in the balls of 0 and 1, 1.2 in those of 1 and 2
    assert found.coverage == 0.75


def test_of_one_distribution_density_is_one_and_coverage_as_derived():
    real, fake = np.random.default_rng(0).normal(size=(2, 3000, 3))
    found = manifold_metrics(real, fake)
    assert found.density == pytest.approx(1, abs=0.05)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_neighbours_by_hand():
    features = np.array([[0.0, 0], [3, 4], [0, 1]])
    np.testing.assert_allclose(neighbour_distances(features, 1), [1, math.sqrt(18), 1])
    which, distances = nearest(np.array([[3.0, 3], [0, 0.4]]), features)
    assert which.tolist() == [[1], [0]]
    np.testing.assert_allclose(distances, [[1], [0.4]])
    which, distances = nearest(np.array([[0.0, 0.4]]), features, k=3)
    assert which.tolist() == [[0, 2, 1]]
    np.testing.assert_allclose(distances, [[0.4, 0.6, math.hypot(3, 3.6)]])


def test_blocks_of_distances_are_those_of_the_whole():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2100, 4)) + 50, draw.normal(size=(300, 4)) + 50
    which, distances = nearest(a, b)
    whole = np.linalg.norm(a[:, None] - b, axis=-1)
    assert (which[:, 0] == whole.argmin(1)).all()
    np.testing.assert_allclose(distances[:, 0], whole.min(1), rtol=1e-9)


def test_copies_are_memorised_and_new_samples_are_not():
    assert memorised(np.zeros(5), np.array([1.0, 2, 3])) == 1
    assert memorised(np.array([9.0]), np.array([1.0, 2, 3])) == 0
    assert memorised(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.5
    assert memorised(np.array([2.0]), np.array([1.0, 2, 3, 4])) == pytest.approx(2.5 / 4)


def test_too_few_for_neighbours():
    with pytest.raises(ValueError, match="3 nearest of 2 features"):
        nearest(np.zeros((4, 2)), np.zeros((2, 2)), 3)
    with pytest.raises(ValueError, match="5 neighbours need more features: 5 given"):
        manifold_metrics(np.ones((5, 2)), np.ones((50, 2)))


# ---------------------------------------------------------------------------------------------------------
# Classifier score.


def test_sure_and_even_is_the_number_of_classes_and_alike_is_one():
    sure, alike = ClassifierScore(40, splits=2), ClassifierScore(40, splits=2)
    sure.add(np.tile(np.eye(4), (10, 1)))
    alike.add(np.full((40, 4), 0.25))
    assert sure.result() == pytest.approx((4, 0))
    assert alike.result() == pytest.approx((1, 0))


def test_scores_of_two_samples_by_hand():
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    mean = p.mean(0)
    wanted = math.exp(np.mean([sum(row * np.log(row / mean)) for row in p]))
    score = ClassifierScore(2, splits=1)
    score.add(p[:1])
    score.add(p[1:])
    assert score.result().mean == pytest.approx(wanted)
    assert math.isnan(score.result().deviation)
