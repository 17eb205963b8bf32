"""One dimension: three forms against complex numbers, the laws of a rotation, numerics, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gormley_vision.layers.rope import (
    apply_rope,
    pairing_permutation,
    rope_angles,
    rope_frequencies,
    rotate_half_split,
    rotate_interleaved,
    rotation_matrix,
)

DIM = 8
POSITIONS = st.floats(-10_000, 10_000, width=32)
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=15, deadline=None, derandomize=True)
pairings = pytest.mark.parametrize("pairing", ["interleaved", "half"])


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def reference(x, positions, base=10000.0, pairing="interleaved"):
    """Multiplication of complex numbers by exp(i m theta), in float64: x [..., N, d], positions [..., N]."""
    x, positions = np.asarray(x, np.float64), np.asarray(positions, np.float64)
    d = x.shape[-1]
    turn = np.exp(1j * positions[..., None] * base ** (-2.0 * np.arange(d // 2) / d))
    if pairing == "interleaved":
        z = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
        return np.stack([z.real, z.imag], axis=-1).reshape((*z.shape[:-1], d))
    z = (x[..., : d // 2] + 1j * x[..., d // 2 :]) * turn
    return np.concatenate([z.real, z.imag], axis=-1)


def tolerance(x, positions):
    """What float32 may cost: an angle m * theta is off by at most |m| 2^-23 (theta's rounding, and the product's)."""
    radius = np.linalg.norm(np.asarray(x, np.float64), axis=-1, keepdims=True)
    return radius * (np.abs(np.asarray(positions, np.float64))[..., None] * 2.0**-23 + 2.0**-21)


def assert_within(got, want, bound):
    error = np.abs(np.asarray(got, np.float64) - want)
    assert (error <= bound).all(), f"off by up to {error.max():.2e}, {(error / bound).max():.1f} times what is allowed"


def rotate(x, positions, base=10000.0, pairing="interleaved"):
    return apply_rope(x, rope_angles(positions, rope_frequencies(x.shape[-1], base)), pairing)


# ---------------------------------------------------------------------------------------------------------
# Forms.


@pairings
@pytest.mark.parametrize("dim", [2, 6, 64])
def test_every_form_is_multiplication_by_a_complex_number(dim, pairing):
    y, positions = jnp.asarray(normal(0, 5, dim), jnp.float32), np.array([0, 1, 7, 100, 2.5])
    want = reference(y, positions, pairing=pairing)
    angles = rope_angles(positions, rope_frequencies(dim))
    perm = pairing_permutation(dim) if pairing == "half" else np.arange(dim)
    matrix = np.asarray(rotation_matrix(angles))[:, perm][:, :, perm]
    direct = {"interleaved": rotate_interleaved, "half": rotate_half_split}[pairing]
    for got in (np.einsum("nij,nj->ni", matrix, y), direct(y, angles), apply_rope(y, angles, pairing)):
        assert_within(got, want, tolerance(y, positions))


def test_r_is_the_block_diagonal_matrix_of_the_slide():
    a, b = 0.3, 1.2
    c, s = np.cos, np.sin
    want = [[c(a), -s(a), 0, 0], [s(a), c(a), 0, 0], [0, 0, c(b), -s(b)], [0, 0, s(b), c(b)]]
    np.testing.assert_allclose(rotation_matrix(jnp.array([a, b])), want, rtol=1e-6)
    assert rotation_matrix(jnp.zeros((2, 5, 3))).shape == (2, 5, 6, 6)


@pairings
def test_numpy_arrays_are_taken_as_jax_takes_them(pairing, recwarn):
    x = normal(0, 3, DIM)  # float64, which jax makes float32
    got = rotate(x, np.arange(3), pairing=pairing)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, rotate(jnp.asarray(x), jnp.arange(3), pairing=pairing))
    assert not recwarn.list


def test_a_single_vector_is_rotated_too():
    y = jnp.array([1.0, 0.0])
    np.testing.assert_allclose(rotate_interleaved(y, jnp.array([np.pi / 2])), [0, 1], atol=1e-6)


@given(seed=SEEDS, m=POSITIONS, n=POSITIONS)
@few
def test_the_pairings_differ_by_a_permutation_and_scores_agree(seed, m, n):
    q, k = jnp.asarray(normal(seed, 2, 1, DIM), jnp.float32)
    perm, at_m, at_n = pairing_permutation(DIM), jnp.array([m]), jnp.array([n])
    np.testing.assert_array_equal(rotate(q[:, perm], at_m, pairing="half"), rotate(q, at_m)[:, perm])
    there = np.vdot(rotate(q[:, perm], at_m, pairing="half"), rotate(k[:, perm], at_n, pairing="half"))
    np.testing.assert_allclose(there, np.vdot(rotate(q, at_m), rotate(k, at_n)), rtol=1e-4, atol=1e-4)
    back = np.argsort(perm)
    np.testing.assert_array_equal(rotate(q, at_m, pairing="half"), rotate(q[:, back], at_m)[:, perm])


def test_the_permutation_moves_weights_from_one_pairing_to_the_other():
    """Kernels trained for one form give the other form the same scores, which the unmoved kernels do not."""
    x, positions, perm = normal(0, 6, 16), jnp.arange(6), pairing_permutation(DIM)
    x, (wq, wk) = jnp.asarray(x, jnp.float32), jnp.asarray(normal(1, 2, 16, DIM), jnp.float32)

    def scores(wq, wk, pairing):
        return rotate(x @ wq, positions, pairing=pairing) @ rotate(x @ wk, positions, pairing=pairing).T

    trained = scores(wq, wk, "interleaved")
    np.testing.assert_allclose(scores(wq[:, perm], wk[:, perm], "half"), trained, rtol=1e-3, atol=1e-3)
    assert np.abs(scores(wq, wk, "half") - trained).max() > 1


# ---------------------------------------------------------------------------------------------------------
# Laws.


@pairings
@given(seed=SEEDS, m=POSITIONS, n=POSITIONS, shift=POSITIONS)
@few
def test_scores_depend_on_the_difference_alone(pairing, seed, m, n, shift):
    with jax.enable_x64(True):
        q, k = jnp.asarray(normal(seed, 2, 1, DIM))
        frequencies = rope_frequencies(DIM, dtype=jnp.float64)

        def score(at_q, at_k):
            angles = [rope_angles(jnp.array([p], jnp.float64), frequencies) for p in (at_q, at_k)]
            return float(jnp.vdot(apply_rope(q, angles[0], pairing), apply_rope(k, angles[1], pairing)))

        assert q.dtype == jnp.float64
        np.testing.assert_allclose(score(m + shift, n + shift), score(m, n), atol=1e-9)
        np.testing.assert_allclose(score(m - n, 0), score(m, n), atol=1e-9)


def test_scores_depend_on_the_difference():
    """The converse: a RoPE that rotates nothing would pass the law above."""
    x = jnp.ones((5, DIM))
    scores = rotate(x, jnp.arange(5)) @ x[0]  # twice the sum of cos(m theta_i)
    assert np.ptp(scores) > 3


@pairings
@given(seed=SEEDS, m=POSITIONS)
@few
def test_norms_are_kept_pair_by_pair(pairing, seed, m):
    x = jnp.asarray(normal(seed, 1, DIM), jnp.float32)
    turned = np.asarray(rotate(x, jnp.array([m]), pairing=pairing))
    shape = (DIM // 2, 2) if pairing == "interleaved" else (2, DIM // 2)
    radii = [np.linalg.norm(v.reshape(shape), axis=shape.index(2)) for v in (np.asarray(x), turned)]
    np.testing.assert_allclose(radii[1], radii[0], rtol=1e-6)


@pairings
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_position_zero_is_the_identity_to_the_bit(pairing, dtype):
    x = jnp.asarray(normal(0, 3, DIM), dtype)
    np.testing.assert_array_equal(rotate(x, jnp.zeros(3), pairing=pairing), x)


@given(seed=SEEDS, m=POSITIONS, n=POSITIONS)
@few
def test_rotations_add_up_and_undo(seed, m, n):
    with jax.enable_x64(True):
        x, frequencies = jnp.asarray(normal(seed, 1, DIM)), rope_frequencies(DIM, dtype=jnp.float64)
        at = [rope_angles(jnp.array([p], jnp.float64), frequencies) for p in (m, n, m + n, -m)]
        once = rotate_interleaved(x, at[0])
        np.testing.assert_allclose(rotate_interleaved(once, at[1]), rotate_interleaved(x, at[2]), atol=1e-10)
        np.testing.assert_allclose(rotate_interleaved(once, at[3]), x, atol=1e-10)


@pairings
def test_jit_vmap_and_gradients(pairing):
    x, positions = jnp.asarray(normal(0, 3, 4, DIM), jnp.float32), jnp.asarray(normal(1, 3, 4) * 100, jnp.float32)
    eager = rotate(x, positions, pairing=pairing)
    jitted = jax.jit(lambda x, p: rotate(x, p, pairing=pairing))(x, positions)
    np.testing.assert_allclose(jitted, eager, atol=1e-6)
    np.testing.assert_array_equal(jax.vmap(lambda x, p: rotate(x, p, pairing=pairing))(x, positions), eager)
    # The gradient of <g, R x> is R^T g: the rotation by -m.
    g = jnp.asarray(normal(2, 3, 4, DIM), jnp.float32)
    gradient = jax.grad(lambda x: jnp.vdot(g, rotate(x, positions, pairing=pairing)))(x)
    np.testing.assert_allclose(gradient, rotate(g, -positions, pairing=pairing), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------
# Positions of any kind, and precision.


@given(seed=SEEDS)
@few
def test_positions_are_batched_ragged_and_fractional(seed):
    x, positions = jnp.asarray(normal(seed, 2, 3, DIM), jnp.float32), normal(seed + 1, 2, 3).astype(np.float32) * 1000
    got = rotate(x, positions)
    assert_within(got, reference(x, positions), tolerance(x, positions))


def test_rows_of_a_ragged_batch_are_rotated_each_by_its_own_positions():
    x = jnp.asarray(normal(0, 2, 4, DIM), jnp.float32)
    ragged = jnp.array([[0, 1, 2, 3], [5, 0, 9_999, 0]])  # the second row: another start, a gap, padding
    alone = [rotate(x[i], ragged[i]) for i in range(2)]
    np.testing.assert_array_equal(rotate(x, ragged), alone)


def test_heads_stand_before_or_after_the_tokens():
    x, positions = jnp.asarray(normal(0, 2, 5, 3, DIM), jnp.float32), jnp.arange(10).reshape(2, 5)  # [B, N, K, Dh]
    angles = rope_angles(positions, rope_frequencies(DIM))
    after = apply_rope(x, angles[:, :, None], "half", token_axis=-3)
    before = apply_rope(x.swapaxes(1, 2), angles[:, None], "half")
    np.testing.assert_array_equal(after, before.swapaxes(1, 2))
    x, positions = x.swapaxes(1, 2), positions[:, None]
    assert_within(before, reference(x, positions, pairing="half"), tolerance(x, positions))


@pairings
@given(seed=SEEDS, m=st.integers(0, 10_000))
@few
def test_bfloat16_loses_no_more_than_its_own_rounding(pairing, seed, m):
    positions = jnp.array([m, 257, 9_999, 10_000])
    x = jnp.asarray(normal(seed, 4, DIM), jnp.bfloat16)
    got = rotate(x, positions, pairing=pairing)
    assert got.dtype == jnp.bfloat16
    want = reference(x.astype(jnp.float32), positions, pairing=pairing)
    assert_within(got, want, np.abs(want) * 2.0**-8 + 2 * tolerance(x.astype(jnp.float32), positions))


def test_float32_angles_at_ten_thousand_are_as_good_as_float32_can_be():
    positions = np.arange(9_900, 10_001)
    angles = rope_angles(positions, rope_frequencies(64))
    exact = positions[:, None] * 10000.0 ** (-2.0 * np.arange(32) / 64)
    error = np.abs(np.asarray(angles, np.float64) - exact)
    assert angles.dtype == jnp.float32
    assert 1e-4 < error.max() < exact.max() * 2.0**-23  # about 3e-4 rad: a fact, which tolerances must allow for
    np.testing.assert_array_less(error[:, 1:], exact[:, 1:] * 2.0**-23)


def test_float64_is_carried_through():
    with jax.enable_x64(True):
        x, positions = normal(0, 3, DIM), np.array([1.5, 10_000, 1e6])
        angles = rope_angles(jnp.asarray(positions), rope_frequencies(DIM, dtype=jnp.float64))
        got = apply_rope(jnp.asarray(x), angles)
        assert got.dtype == angles.dtype == jnp.float64
        np.testing.assert_allclose(got, reference(x, positions), atol=1e-9)
        kept = apply_rope(jnp.asarray(x, jnp.bfloat16), angles)
        assert kept.dtype == jnp.bfloat16


def test_frequencies_are_correctly_rounded():
    for dim, base in ((6, 10000.0), (64, 10000.0), (16, 100.0), (128, 500_000.0)):
        want = np.power(base, -2.0 * np.arange(dim // 2) / dim).astype(np.float32)
        np.testing.assert_array_equal(rope_frequencies(dim, base), want)


# ---------------------------------------------------------------------------------------------------------
# Refusals.

REFUSED = {
    "odd width": (lambda: rope_frequencies(7), "must be even"),
    "no channels": (lambda: rope_frequencies(0), "must be even"),
    "odd permutation": (lambda: pairing_permutation(7), "is odd"),
    "negative base": (lambda: rope_frequencies(8, -1.0), "not positive"),
    "frequencies with a batch": (lambda: rope_angles(jnp.zeros(2), jnp.zeros((2, 4))), "not \\[Dh/2\\]"),
    "bfloat16 positions": (lambda: rope_angles(jnp.zeros(2, jnp.bfloat16), jnp.zeros(4)), "no 257"),
    "float16 frequencies": (lambda: rope_angles(jnp.zeros(2), jnp.zeros(4, jnp.float16)), "use float32"),
    "bfloat16 angles": (lambda: apply_rope(jnp.zeros((2, 8)), jnp.zeros((2, 4), jnp.bfloat16)), "use float32"),
    "complex positions": (lambda: rope_angles(jnp.zeros(2, jnp.complex64), jnp.zeros(4)), "not real"),
    "unknown pairing": (lambda: apply_rope(jnp.zeros((2, 8)), jnp.zeros((2, 4)), "neox"), "one of interleaved, half"),
    "another width": (lambda: apply_rope(jnp.zeros((2, 8)), jnp.zeros((2, 3))), "Dh and Dh/2"),
    "an odd head": (lambda: apply_rope(jnp.zeros((2, 9)), jnp.zeros((2, 4))), "Dh and Dh/2"),
    "a token too few": (lambda: apply_rope(jnp.zeros((5, 8)), jnp.zeros((4, 4))), "leave_unrotated"),
    "one position for all tokens": (lambda: apply_rope(jnp.zeros((5, 8)), jnp.zeros((1, 4))), "leave_unrotated"),
    "no head axis": (lambda: apply_rope(jnp.zeros((3, 5, 2, 8)), jnp.zeros((5, 4)), token_axis=-3), "None"),
    "no head axis, batched": (lambda: apply_rope(jnp.zeros((3, 5, 2, 8)), jnp.zeros((3, 5, 4)), token_axis=-3), "None"),
    "channels as tokens": (lambda: apply_rope(jnp.zeros((5, 8)), jnp.zeros((5, 4)), token_axis=-1), "axis -1"),
    "another batch": (lambda: apply_rope(jnp.zeros((2, 5, 8)), jnp.zeros((3, 5, 4))), "do not broadcast"),
    "a batch that x lacks": (lambda: apply_rope(jnp.zeros((5, 8)), jnp.zeros((3, 5, 4))), "do not broadcast"),
    "integers": (lambda: apply_rope(jnp.zeros((5, 8), jnp.int32), jnp.zeros((5, 4))), "floating point"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
