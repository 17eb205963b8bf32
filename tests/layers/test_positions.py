"""Position embeddings: the sine-cosine table by hand, and resizing against torch, scipy and its own laws.

golden/position_resize.npz is what torch and scipy answered (golden/make_position_resize.py); torch is not needed here.
"""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage  # a dependency of jax

from gormley_vision.layers.positions import _weights, resize_position_embeddings, sincos_2d

CONVENTIONS = ["google", "timm", "huggingface"]
with np.load(Path(__file__).parent / "golden" / "position_resize.npz") as file:
    GOLDEN = dict(file)
CASES = [tuple(tuple(int(n) for n in grid) for grid in case) for case in GOLDEN["cases"]]
SHAPES = [((3, 5), (6, 4)), ((4, 6), (4, 3)), ((5, 2), (9, 2)), ((1, 4), (3, 7)), ((6, 5), (1, 1))]

every_convention = pytest.mark.parametrize("convention", CONVENTIONS)


def golden(name, index, which):
    """The part of `name` that belongs to case `index`, whose length is that of its old (0) or new (1) grid."""
    ends = np.cumsum([math.prod(case[which]) for case in CASES])
    return np.split(GOLDEN[name], ends[:-1])[index]


def noise(grid, dim=3):
    return np.random.default_rng(0).standard_normal((math.prod(grid), dim)).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------
# The sine-cosine table.


def test_sincos_by_hand():
    # D = 8, T = 100: frequencies 1 and 1/100. A grid of one row of two and its second row.
    table = sincos_2d(2, 2, 8, temperature=100.0)
    assert table.shape == (4, 8)
    assert table.dtype == jnp.float32
    s1, c1, s01, c01 = 0.84147098, 0.54030231, 0.00999983, 0.99995000
    np.testing.assert_allclose(
        table,
        [
            [0, 0, 1, 1, 0, 0, 1, 1],
            [s1, s01, c1, c01, 0, 0, 1, 1],  # x = 1: the second token
            [0, 0, 1, 1, s1, s01, c1, c01],  # y = 1: the third
            [s1, s01, c1, c01, s1, s01, c1, c01],
        ],
        atol=1e-7,
    )


@pytest.mark.parametrize(("height", "width", "dim", "temperature"), [(3, 5, 12, 10000.0), (4, 1, 32, 20.0)])
def test_sincos_against_loops(height, width, dim, temperature):
    quarter, expected = dim // 4, []
    for y in range(height):
        for x in range(width):
            row = []
            for position in (x, y):
                for function in (math.sin, math.cos):
                    row += [function(position / temperature ** (k / (quarter - 1))) for k in range(quarter)]
            expected.append(row)
    np.testing.assert_allclose(sincos_2d(height, width, dim, temperature), expected, atol=1e-7)


def test_sincos_scores_tell_its_frequencies():
    """Two tokens d apart in x score the sum of cos(w_k d) + 1: D/4 - 1 and timm's D/4 differ there, in any order."""
    quarter, temperature, width = 4, 16.0, 9
    table = np.asarray(sincos_2d(3, width, 4 * quarter, temperature), np.float64)
    scores = table @ table.T
    apart, k = np.arange(width), np.arange(quarter)
    of = {n: quarter + np.cos(apart[:, None] * temperature ** (-k / n)).sum(-1) for n in (quarter - 1, quarter)}
    np.testing.assert_allclose(scores[0, :width], of[quarter - 1], atol=1e-6)
    assert np.abs(scores[0, :width] - of[quarter]).max() > 0.5
    for x, y, dx, dy in [(0, 0, 2, 1), (3, 1, 2, 1), (6, 0, 2, 2), (0, 0, 2, 2)]:  # offsets alone matter
        t = y * width + x
        expected = of[quarter - 1][dx] + of[quarter - 1][dy] - 2 * quarter
        np.testing.assert_allclose(scores[t, t + dy * width + dx], expected, atol=1e-6)


def test_sincos_is_rounded_once():
    """Not a float32 product before the sine: at position 4999 that would be off by 1e-4."""
    table = sincos_2d(1, 5000, 64)
    w = 10000.0 ** (-np.arange(16) / 15)
    np.testing.assert_array_equal(table[-1, :16], np.sin(4999 * w).astype(np.float32))


@pytest.mark.parametrize("dim", [4, 6, 10, 0, -8])
def test_sincos_refuses_a_dim(dim):
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d(2, 2, dim)


def test_sincos_refuses_the_rest():
    with pytest.raises(ValueError, match="height, width"):
        sincos_2d(0, 2, 8)
    with pytest.raises(ValueError, match="temperature"):
        sincos_2d(2, 2, 8, temperature=0.0)


# ---------------------------------------------------------------------------------------------------------
# Resizing, against others.


@every_convention
@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{old}-{new}" for old, new in CASES])
def test_resize_golden(index, convention):
    resized = resize_position_embeddings(golden("table", index, 0), *CASES[index], convention)
    np.testing.assert_allclose(resized, golden(convention, index, 1), atol=1e-5, rtol=0)


def test_conventions_differ():
    """So that the golden values tell them apart: by more than a hundred times the tolerance."""
    for index in range(5):
        for one, other in [("google", "timm"), ("timm", "huggingface"), ("huggingface", "google")]:
            assert np.abs(golden(one, index, 1) - golden(other, index, 1)).max() > 1e-2


@pytest.mark.parametrize("old", range(1, 33))
def test_google_is_scipy(old):
    """The edge repeated where scipy steps off the grid by a rounding error, and zoom's own answer elsewhere."""
    for new in range(1, 40):
        expected = scipy.ndimage.zoom(np.eye(old), (new / old, 1), order=1, mode="nearest")
        np.testing.assert_allclose(_weights(old, new, "google"), expected, atol=1e-12)


def test_google_keeps_the_edge_that_scipy_zeroes():
    table = np.ones((16 * 16, 1), np.float32)
    scipys = scipy.ndimage.zoom(table.reshape(16, 16, 1), (30 / 16, 30 / 16, 1), order=1)
    ours = np.asarray(resize_position_embeddings(table, (16, 16), (30, 30), "google")).reshape(30, 30, 1)
    np.testing.assert_allclose(ours, 1, atol=1e-6)
    np.testing.assert_allclose(ours[:-1, :-1], scipys[:-1, :-1], atol=1e-6)  # whatever scipy's edge is: 0 in 1.17


@every_convention
@pytest.mark.parametrize(("old", "new"), [(14, 24), (24, 14), (5, 12), (12, 5), (1, 3), (3, 1), (16, 37)])
def test_weights_are_torchs(convention, old, new):
    torch = pytest.importorskip("torch")
    options = {
        "google": {"mode": "bilinear", "align_corners": True},
        "timm": {"mode": "bicubic", "align_corners": False, "antialias": True},
        "huggingface": {"mode": "bicubic", "align_corners": False},
    }[convention]
    image = torch.eye(old, dtype=torch.float64)[None, :, :, None].expand(1, old, old, 2)  # channel c: patch c alone
    resized = torch.nn.functional.interpolate(image, size=(new, 2), **options)[0, :, :, 0].numpy().T
    np.testing.assert_allclose(_weights(old, new, convention), resized, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------
# Resizing, its laws.


@every_convention
def test_rows_of_weights_sum_to_one(convention):
    for old in range(1, 33):
        for new in range(1, 40):
            weights = _weights(old, new, convention)
            assert weights.shape == (new, old)
            assert weights.dtype == np.float64
            np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-12)
            if convention != "google" or new > 1:  # which keeps the first corner, for want of a second
                np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)  # no side is preferred
        np.testing.assert_array_equal(_weights(old, old, convention), np.eye(old))


@every_convention
@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_constant_stays_constant(convention, old, new):
    table = np.broadcast_to(np.float32([3.0, -0.25]), (math.prod(old), 2))
    resized = resize_position_embeddings(table, old, new, convention)
    assert resized.shape == (math.prod(new), 2)
    np.testing.assert_allclose(resized, np.broadcast_to([3.0, -0.25], resized.shape), atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [((3, 5), (6, 4)), ((4, 4), (7, 7)), ((8, 15), (26, 42))])
def test_google_keeps_a_ramp_linear(old, new):
    def ramp(height, width):
        y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(0, 2, width), indexing="ij")
        return np.stack([x, y, 2 * x - 3 * y], axis=-1).reshape(height * width, 3)

    resized = resize_position_embeddings(ramp(*old).astype(np.float32), old, new, "google")
    np.testing.assert_allclose(resized, ramp(*new), atol=2e-6)


@every_convention
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_same_grid_same_bits(convention, dtype):
    table = jnp.asarray(noise((3, 5)), dtype).at[0, 0].set(jnp.nan)  # which a product with an identity would spread
    resized = resize_position_embeddings(table, (3, 5), (3, 5), convention)
    assert resized.dtype == dtype
    assert np.asarray(resized).tobytes() == np.asarray(table).tobytes()


@every_convention
@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_axes_are_not_swapped(convention, old, new):
    """A table that varies in x alone still does, and by the weights of x; the same for y."""
    for axis in (0, 1):
        line = noise((1, old[axis]), 2)
        lengths = [1, 1, 2]
        lengths[axis] = old[axis]
        table = np.broadcast_to(line.reshape(lengths), (*old, 2)).reshape(-1, 2)
        resized = np.asarray(resize_position_embeddings(table, old, new, convention)).reshape(*new, 2)
        lengths[axis] = new[axis]
        expected = (_weights(old[axis], new[axis], convention) @ line).reshape(lengths)
        np.testing.assert_allclose(resized, np.broadcast_to(expected, resized.shape), atol=2e-6)


@every_convention
def test_transposed_grids_resize_alike(convention):
    table = noise((3, 5))
    swapped = table.reshape(3, 5, 3).swapaxes(0, 1).reshape(15, 3)
    one = np.asarray(resize_position_embeddings(table, (3, 5), (7, 4), convention)).reshape(7, 4, 3)
    other = np.asarray(resize_position_embeddings(swapped, (5, 3), (4, 7), convention)).reshape(4, 7, 3)
    np.testing.assert_allclose(one, other.swapaxes(0, 1), atol=1e-6)


def test_antialiasing_is_what_timm_adds():
    """Stripes of two patches, shrunk by four: grey under timm (but at the edges), aliased to -1.375 by Hugging Face.

    A cell's centre lies between two patches of -1: four taps, at 1/2 and 3/2, weigh 2 * (0.59375 + 0.09375) against
    them.
    """
    stripes = np.tile(np.float32([1, -1, -1, 1]), 8)[:, None]
    of = {c: np.asarray(resize_position_embeddings(stripes, (32, 1), (8, 1), c))[2:-2] for c in CONVENTIONS[1:]}
    assert np.abs(of["timm"]).max() < 0.05
    np.testing.assert_allclose(of["huggingface"], -1.375, rtol=1e-6)


def test_resize_under_jit_and_in_bfloat16():
    table = noise((3, 5))
    eager = resize_position_embeddings(table, (3, 5), (6, 4), "timm")
    compiled = jax.jit(resize_position_embeddings, static_argnums=(1, 2, 3))(table, (3, 5), (6, 4), "timm")
    np.testing.assert_allclose(compiled, eager, atol=1e-6)
    low = resize_position_embeddings(jnp.asarray(table, jnp.bfloat16), (3, 5), (6, 4), "timm")
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), eager, atol=0.05)


def test_resize_refuses():
    table = noise((4, 4))
    with pytest.raises(ValueError, match="google, timm, huggingface"):
        resize_position_embeddings(table, (4, 4), (7, 7), "bicubic")
    with pytest.raises(ValueError, match="google, timm, huggingface"):  # even where there is nothing to do
        resize_position_embeddings(table, (4, 4), (4, 4), "bicubic")
    with pytest.raises(ValueError, match="class and register tokens"):
        resize_position_embeddings(noise((17, 1)), (4, 4), (7, 7), "google")
    with pytest.raises(ValueError, match="class and register tokens"):
        resize_position_embeddings(table[None], (4, 4), (7, 7), "google")
    with pytest.raises(ValueError, match="new_grid"):
        resize_position_embeddings(table, (4, 4), (0, 7), "google")
    with pytest.raises(ValueError, match="floating point"):
        resize_position_embeddings(np.ones((16, 3), np.int32), (4, 4), (7, 7), "google")
