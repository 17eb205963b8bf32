"""The lecture's RoPE slides: the worked example by hand, and each slip shown by what it breaks (docs/rope.md)."""

import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers.rope import (
    apply_rope,
    leave_unrotated,
    pairing_permutation,
    rope_angles,
    rope_frequencies,
    rotate_half_split,
    rotate_interleaved,
    rotation_matrix,
)

Q, K = jnp.array([1.0, 3, 1, 3, 1, 3]), jnp.array([3.0, 1, 3, 1, 3, 1])
THETA = rope_frequencies(6)


def rotated(y, position, frequencies=THETA):
    return rotation_matrix(rope_angles(position, frequencies)) @ y


# By mpmath, 30 digits: pair i of R_t q is (cos - 3 sin, sin + 3 cos), and of R_j k (3 cos - sin, 3 sin + cos), of
# t theta_i with theta = 1, 10000^(-1/3), 10000^(-2/3).
ROTATED_Q = {
    1: [-1.98411064856, 2.46237790241, 0.859725305646, 3.04316815159, 0.993534380136, 3.00214747064],
    2: [-3.14403911702, -0.339143082816, 0.717598721788, 3.07978117315, 0.987064148696, 3.00428100656],
    5: [3.16043500945, -0.107937718273, 0.283185089284, 3.1495723845, 0.967626085347, 3.01059790722],
}
ROTATED_K = {
    1: [0.779435932797, 3.06471526029, 2.95036970466, 1.13812064643, 2.9978386046, 1.00646097828],
    5: [1.80991083105, -2.59311063853, 2.68956896117, 1.66319535927, 2.98905397698, 1.03225787605],
}
# Each pair is q = 1 + 3i and k = 3 + i, and conj(k) q = 6 + 8i, so that with m = t - j
# s(m) = sum_i (6 cos(m theta_i) - 8 sin(m theta_i)) / sqrt(6).
SCORES = {0: 18 / np.sqrt(6), 1: 3.312992291653, 2: 0.582484724206, -1: 9.12660890413, -3: 3.385560140786}


def test_the_worked_example_vectors():
    np.testing.assert_allclose(THETA, [1, 0.0464158883361, 0.00215443469003], rtol=1e-6)
    for y, table in ((Q, ROTATED_Q), (K, ROTATED_K)):
        for position, want in table.items():
            angles = rope_angles(position, THETA)
            perm = pairing_permutation(6)
            np.testing.assert_allclose(rotated(y, position), want, rtol=2e-6, atol=1e-6)
            np.testing.assert_allclose(rotate_interleaved(y, angles), want, rtol=2e-6, atol=1e-6)
            np.testing.assert_allclose(rotate_half_split(y[perm], angles)[np.argsort(perm)], want, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("start", [0, 1, 50])
def test_the_worked_example_scores(start):
    for difference, want in SCORES.items():
        j = start + 3
        t = j + difference
        np.testing.assert_allclose(rotated(K, j) @ rotated(Q, t) / np.sqrt(6), want, rtol=1e-5, atol=2e-5)


def test_the_formulas_of_the_slides_word_by_word():
    """y * cos + (-y2, y1, -y4, ...) * sin, and [Y1 | Y2] * cos(C) + [-Y2 | Y1] * sin(C), in numpy."""
    d, n = 6, 4
    y = np.random.default_rng(0).standard_normal((n, d))
    theta = 10000.0 ** (-2 * np.arange(d // 2) / d)
    angles = rope_angles(jnp.arange(1, n + 1), rope_frequencies(d))
    for m in range(1, n + 1):
        v = y[m - 1]
        swapped = np.array([-v[1], v[0], -v[3], v[2], -v[5], v[4]])
        want = v * np.cos(m * np.repeat(theta, 2)) + swapped * np.sin(m * np.repeat(theta, 2))
        np.testing.assert_allclose(rotate_interleaved(jnp.asarray(v, jnp.float32), angles[m - 1]), want, atol=1e-6)
    c = np.arange(1, n + 1)[:, None] * np.concatenate([theta, theta])
    want = y * np.cos(c) + np.concatenate([-y[:, d // 2 :], y[:, : d // 2]], axis=1) * np.sin(c)
    np.testing.assert_allclose(rotate_half_split(jnp.asarray(y, jnp.float32), angles), want, atol=1e-6)


def test_rotating_both_by_the_difference_forgets_position():
    """f_q(x_t, m) and f_k(x_j, m) with m = t - j: R_m cancels itself, and scores are those of no RoPE at all."""
    for t, j in ((3, 3), (3, 2), (50, 3), (3, 50)):
        wrong = rotated(K, t - j) @ rotated(Q, t - j)
        np.testing.assert_allclose(wrong, K @ Q, rtol=1e-5)
    right = [float(rotated(K, 3) @ rotated(Q, t)) for t in (2, 3, 4)]
    assert np.ptp(right) > 10


def test_a_power_of_two_in_the_exponent_stops_most_pairs():
    """theta_i = 10000^(-2^(i-1) / d): at d = 64, 25 of 32 pairs turn by less than 0.001 rad in 10,000 positions."""
    d, i = 64, np.arange(1, 33)
    wrong = 10000.0 ** (-(2.0 ** (i - 1)) / d)
    assert (10_000 * wrong < 1e-3).sum() == 25
    assert wrong[0] < 0.9  # and the first is not 1
    right = rope_frequencies(d)
    assert 10_000 * right.min() > 1
    np.testing.assert_allclose(
        right[1:] / right[:-1], 10000 ** (-2 / d), rtol=1e-5
    )  # a geometric sequence; wrong's is not


def test_the_root_of_the_norm_does_not_keep_scores_at_one():
    """sqrt(|k|), |k| read as a norm, is about d_k^(1/4): too little, so that scores spread as d_k^(1/4)."""
    rng = np.random.default_rng(0)
    for d in (16, 256):
        q, k = rng.standard_normal((2, 20_000, d))
        products = (q * k).sum(axis=1)
        np.testing.assert_allclose((products / np.sqrt(d)).std(), 1, rtol=0.03)
        wrong = products / np.sqrt(np.linalg.norm(k, axis=1))
        np.testing.assert_allclose(wrong.std(), d**0.25, rtol=0.03)


def test_d_is_the_width_that_is_rotated():
    """With d = d_k / 2 and i to d/2, R lacks half of its blocks; with i to d_k/2, the last pair turns 1e-8 as fast."""
    d_k = 64
    d = d_k // 2
    assert len(np.arange(1, d // 2 + 1)) == d_k // 4  # R needs d_k / 2
    with pytest.raises(ValueError, match="Dh and Dh/2"):
        apply_rope(jnp.zeros((1, d_k)), rope_angles(jnp.arange(1), rope_frequencies(d)))
    slowest = 10000.0 ** (-2 * (d_k / 2 - 1) / d)
    assert slowest < 2e-8
    # RoFormer, equation 15: d/2 blocks for d channels, from 1 to base^(-(d-2)/d).
    assert rope_frequencies(d_k).shape == (d_k // 2,)
    np.testing.assert_allclose(rope_frequencies(d_k)[-1], 10000 ** (-(d_k - 2) / d_k), rtol=1e-6)


def test_the_matrix_version_is_not_r_but_r_of_permuted_channels():
    """Its stated goal, row m of g(Y) = R_m y_m, does not hold as written; the scores are right all the same."""
    angles, perm = rope_angles(jnp.arange(1, 5), THETA), pairing_permutation(6)
    y = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)
    r = rotation_matrix(angles)
    goal = jnp.einsum("nij,nj->ni", r, y)
    assert np.abs(rotate_half_split(y, angles) - goal).max() > 0.5
    np.testing.assert_allclose(rotate_half_split(y[:, perm], angles), goal[:, perm], atol=1e-6)
    # Relative all the same: position 4 against 3 as 2 against 1.
    both = rotate_half_split(jnp.stack([Q, Q, Q, Q]), angles), rotate_half_split(jnp.stack([K, K, K, K]), angles)
    np.testing.assert_allclose(both[0][3] @ both[1][2], both[0][1] @ both[1][0], rtol=1e-5)


def test_one_pairing_for_queries_and_the_other_for_keys_is_not_relative():
    positions = jnp.arange(1, 30)
    angles = rope_angles(positions, THETA)
    q, k = (jnp.tile(v, (29, 1)) for v in (Q, K))
    mixed = np.sum(apply_rope(q, angles, "interleaved") * apply_rope(k, angles, "half"), axis=-1)
    alike = np.sum(apply_rope(q, angles, "half") * apply_rope(k, angles, "half"), axis=-1)
    assert np.ptp(mixed) > 5  # all at t - j = 0
    assert np.ptp(alike) < 1e-4


def test_counting_from_one_changes_no_score_but_those_of_unrotated_tokens():
    y = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 6)), jnp.float32)

    def scores(first_position):
        angles = rope_angles(first_position + jnp.arange(4), THETA)
        q, k = apply_rope(y, jnp.tile(leave_unrotated(angles, first=1)[None], (2, 1, 1)), "half")
        return q @ k.T

    from_zero, from_one = scores(0), scores(1)
    np.testing.assert_allclose(from_one[1:, 1:], from_zero[1:, 1:], atol=1e-5)
    np.testing.assert_array_equal(from_one[0, 0], from_zero[0, 0])
    assert np.abs(from_one[0, 1:] - from_zero[0, 1:]).max() > 0.1  # [CLS] sees where a token is, not how far
