"""Bugs of other libraries: each check must pass here, and fail on a model of the bug that it is for."""

import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers.rope import apply_rope, rope_angles, rope_frequencies

DIM = 8


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def reference(x, positions, base=10000.0):
    """Neighbouring channels as complex numbers, times exp(i m theta), in float64."""
    x, theta = np.asarray(x, np.float64), base ** (-np.arange(0, DIM, 2) / DIM)
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * np.asarray(positions)[..., None] * theta)
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


def rotate(x, positions, base=10000.0, pairing="interleaved"):
    return apply_rope(x, rope_angles(positions, rope_frequencies(x.shape[-1], base)), pairing)


def check_two_bases_differ(rotate):
    x, positions = jnp.ones((4, DIM)), jnp.arange(4)
    first, second = rotate(x, positions, 10000.0), rotate(x, positions, 100.0)
    np.testing.assert_allclose(first, reference(x, positions, 10000.0), atol=1e-5)
    np.testing.assert_allclose(second, reference(x, positions, 100.0), atol=1e-5)


def check_low_precision_and_after(rotate):
    """Far positions with bfloat16 queries; then with float32 ones, in the same process."""
    x, positions = normal(0, 1200, DIM), jnp.arange(1200)
    for dtype, atol in ((jnp.bfloat16, 0.04), (jnp.float32, 1e-3)):
        given = jnp.asarray(x, dtype)
        got = rotate(given, positions, 10000.0)
        assert got.dtype == dtype
        np.testing.assert_allclose(np.asarray(got, np.float64), reference(given, positions), atol=atol)


def check_batched_positions(rotate):
    x, positions = jnp.asarray(normal(0, 2, 4, DIM), jnp.float32), jnp.array([[0, 1, 2, 3], [7, 8, 9, 10]])
    got = rotate(x, positions, 10000.0)
    assert got.shape == x.shape
    np.testing.assert_allclose(got, reference(x, positions), atol=1e-5)


def check_another_start(rotate):
    x = jnp.ones((4, DIM))
    for start in (0, 6, 0):
        positions = jnp.arange(start, start + 4)
        np.testing.assert_allclose(rotate(x, positions, 10000.0), reference(x, positions), atol=1e-5)


CHECKS = (check_two_bases_differ, check_low_precision_and_after, check_batched_positions, check_another_start)


@pytest.mark.parametrize("check", CHECKS)
def test_known_bugs_of_others_are_not_here(check):
    check(rotate)


def cache_without_base():
    """equinox 0.13.8: the table is kept under (width, dtype), so the first base serves every module."""
    tables = {}

    def rotate(x, positions, base):
        key = (x.shape[-1], x.dtype)
        tables.setdefault(key, rope_angles(jnp.arange(2000), rope_frequencies(x.shape[-1], base)))
        return apply_rope(x, tables[key][positions])

    return rotate


def positions_in_the_querys_type():
    """rotary-embedding-torch 0.9.1: arange in bfloat16, and the table is kept for float32 callers."""
    tables = {}

    def rotate(x, positions, base):
        rounded = positions.astype(x.dtype).astype(jnp.float32)
        tables.setdefault((x.shape, base), rope_angles(rounded, rope_frequencies(x.shape[-1], base)))
        return apply_rope(x, tables[x.shape, base])

    return rotate


def outer_and_promoted():
    """flax nnx 0.12.12: positions go through jnp.outer, which flattens a batch; bfloat16 comes out as float32."""

    def rotate(x, positions, base):
        angles = jnp.outer(positions, rope_frequencies(x.shape[-1], base))
        return apply_rope(x.astype(jnp.float32), angles)

    return rotate


def rotation_in_bfloat16():
    """jax-ml/bonsai's DINOv3 and bf16 buffers (transformers #25681): cos and sin in bfloat16, whatever the model is."""

    def rotate(x, positions, base):
        angles = rope_angles(positions, rope_frequencies(x.shape[-1], base))
        angles = angles.astype(jnp.bfloat16).astype(jnp.float32)
        return apply_rope(x.astype(jnp.bfloat16), angles).astype(x.dtype)

    return rotate


def cache_without_start():
    """lucidrains #11: the table is kept by length, and the offset is forgotten."""
    tables = {}

    def rotate(x, positions, base):
        key = (len(positions), base)
        tables.setdefault(key, rope_angles(positions, rope_frequencies(x.shape[-1], base)))
        return apply_rope(x, tables[key])

    return rotate


def the_other_pairing():
    """timm #2692: weights of one pairing run with the other."""
    return lambda x, positions, base: rotate(x, positions, base, pairing="half")


@pytest.mark.parametrize(
    ("bug", "check"),
    [
        (cache_without_base, check_two_bases_differ),
        (positions_in_the_querys_type, check_low_precision_and_after),
        (outer_and_promoted, check_batched_positions),
        (outer_and_promoted, check_low_precision_and_after),
        (rotation_in_bfloat16, check_low_precision_and_after),
        (cache_without_start, check_another_start),
        (the_other_pairing, check_batched_positions),
    ],
)
def test_the_checks_catch_those_bugs(bug, check):
    with pytest.raises((AssertionError, ValueError)):
        check(bug())


def test_nothing_is_kept_between_calls():
    x, positions = jnp.asarray(normal(0, 5, DIM), jnp.float32), jnp.arange(5)
    before = rotate(x, positions)
    rotate(x.astype(jnp.bfloat16), positions + 7, 100.0)
    rotate(jnp.ones((2, 9, DIM)), jnp.arange(18).reshape(2, 9), pairing="half")
    np.testing.assert_array_equal(rotate(x, positions), before)
