"""Two dimensions: grids, axial and mixed angles, unrotated tokens, published conventions, other sizes than trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gormley_vision.layers.rope import (
    PRESETS,
    apply_rope,
    axial_angles,
    grid_positions,
    interpolate_positions,
    leave_unrotated,
    mixed_angles,
    mixed_frequencies,
    ntk_base,
    ntk_mixed_frequencies,
    period_frequencies,
    preset_angles,
    rope_angles,
    rope_frequencies,
)

DIM, HEADS, H, W = 16, 3, 3, 5
PATCHES = st.floats(-100, 100, width=32)
few = settings(max_examples=12, deadline=None, derandomize=True)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def complex_rotation(x, angles, pairing):
    """x times exp(i angle), pair by pair, in float64."""
    x, half = np.asarray(x, np.float64), x.shape[-1] // 2
    channels = (slice(0, None, 2), slice(1, None, 2)) if pairing == "interleaved" else (slice(half), slice(half, None))
    z = (x[..., channels[0]] + 1j * x[..., channels[1]]) * np.exp(1j * angles)
    out = np.empty_like(x)
    out[..., channels[0]], out[..., channels[1]] = z.real, z.imag
    return out


# ---------------------------------------------------------------------------------------------------------
# Grids.


def test_a_grid_is_x_then_y_row_by_row():
    want = [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    np.testing.assert_array_equal(grid_positions(2, 3), want)


@pytest.mark.parametrize(
    ("coordinates", "x", "y"),
    [
        ("separate", [-0.75, -0.25, 0.25, 0.75], [-0.5, 0.5]),
        ("max", [-0.75, -0.25, 0.25, 0.75], [-0.75, -0.25]),
        ("min", [-0.5, 0.5, 1.5, 2.5], [-0.5, 0.5]),
    ],
)
def test_normalised_coordinates_of_a_rectangle(coordinates, x, y):
    np.testing.assert_allclose(grid_positions(2, 4, coordinates), [(a, b) for b in y for a in x])


# ---------------------------------------------------------------------------------------------------------
# Angles, and the law in two dimensions.


@pytest.mark.parametrize("order", ["xy", "yx"])
@pytest.mark.parametrize("pairing", ["interleaved", "half"])
def test_axial_on_a_rectangle_against_complex_numbers(order, pairing):
    x = jnp.asarray(normal(0, H * W, DIM), jnp.float32)
    got = apply_rope(x, axial_angles(grid_positions(H, W), rope_frequencies(DIM // 2, 100.0), order), pairing)
    theta = 100.0 ** (-4.0 * np.arange(DIM // 4) / DIM)
    for token in range(H * W):
        along = {"x": (token % W) * theta, "y": (token // W) * theta}
        want = complex_rotation(x[token], np.concatenate([along[order[0]], along[order[1]]]), pairing)
        np.testing.assert_allclose(got[token], want, atol=2e-6)


def test_order_and_transposition_are_the_same_thing():
    """A wrong order is invisible in squares of symmetric content, so: an H x W grid against the W x H one."""
    frequencies = rope_frequencies(DIM // 2)
    tall, wide = (axial_angles(grid_positions(*size), frequencies, "xy") for size in ((H, W), (W, H)))
    swapped = axial_angles(grid_positions(W, H), frequencies, "yx").reshape(W, H, -1).swapaxes(0, 1).reshape(H * W, -1)
    np.testing.assert_array_equal(tall, swapped)
    assert np.abs(tall - wide).max() > 1


def angles_of(kind, positions, dtype):
    if kind == "mixed":
        return mixed_angles(positions, mixed_frequencies(jax.random.key(0), HEADS, DIM, dtype=dtype))
    return axial_angles(positions, rope_frequencies(DIM // 2, 100.0, dtype), kind)[..., None, :]


@pytest.mark.parametrize("kind", ["xy", "yx", "mixed"])
@given(seed=st.integers(0, 2**32 - 1), places=st.lists(PATCHES, min_size=6, max_size=6))
@few
def test_scores_depend_on_the_offset_in_x_and_y_alone(kind, seed, places):
    with jax.enable_x64(True):
        q, k = jnp.asarray(normal(seed, 2, 1, HEADS, DIM))
        at_q, at_k, shift = np.array(places).reshape(3, 1, 2)

        def scores(at_q, at_k):
            turned = [
                apply_rope(v, angles_of(kind, jnp.asarray(p), jnp.float64), token_axis=-3)
                for v, p in ((q, at_q), (k, at_k))
            ]
            return np.sum(turned[0] * turned[1], axis=-1)

        np.testing.assert_allclose(scores(at_q + shift, at_k + shift), scores(at_q, at_k), atol=1e-10)
        np.testing.assert_allclose(scores(at_q - at_k, 0 * at_k), scores(at_q, at_k), atol=1e-10)


@pytest.mark.parametrize("kind", ["xy", "yx", "mixed"])
def test_scores_depend_on_both_axes(kind):
    positions = jnp.array([[0.0, 0], [1, 0], [0, 1], [3, 2]])
    turned = apply_rope(
        jnp.ones((4, HEADS, DIM)),
        jnp.broadcast_to(angles_of(kind, positions, jnp.float32), (4, HEADS, DIM // 2)),
        token_axis=-3,
    )
    scores = np.einsum("nkd,kd->nk", turned, turned[0])
    assert (scores[0] - scores[1:] > 0.5).all()


def test_an_axial_angle_knows_one_axis_and_a_mixed_angle_both():
    positions = jnp.array([[0.0, 0.0], [0.0, 7.0], [5.0, 0.0]])
    axial = axial_angles(positions, rope_frequencies(DIM // 2), "xy")
    assert not axial[1, : DIM // 4].any()
    assert not axial[2, DIM // 4 :].any()
    mixed = mixed_angles(positions, mixed_frequencies(jax.random.key(0), HEADS, DIM))
    assert (mixed[1:] != 0).all()
    np.testing.assert_allclose(mixed_angles(positions[1:2] + positions[2:], jnp.ones((2, 1, 4)))[0, 0], 12)


def test_initial_mixed_frequencies():
    frequencies = np.asarray(mixed_frequencies(jax.random.key(1), 64, DIM))
    assert frequencies.shape == (2, 64, DIM // 2)
    sizes = np.linalg.norm(frequencies, axis=0)
    magnitudes = 10.0 ** (-4.0 * np.arange(DIM // 4) / DIM)
    np.testing.assert_allclose(sizes, np.tile(np.concatenate([magnitudes, magnitudes]), (64, 1)), rtol=1e-5)
    phi = np.arctan2(frequencies[1], frequencies[0])  # [heads, pairs]: one direction, then a quarter turn further
    np.testing.assert_allclose(np.exp(1j * phi[:, : DIM // 4]), np.exp(1j * phi[:, :1]) * np.ones(DIM // 4), atol=1e-5)
    np.testing.assert_allclose(np.exp(1j * phi[:, DIM // 4 :]), 1j * np.exp(1j * phi[:, :1]) * np.ones(4), atol=1e-5)
    assert len(np.unique(phi[:, 0])) == 64  # each head its own
    assert np.histogram(phi[:, 0], bins=4, range=(-np.pi, np.pi))[0].min() >= 5  # all around
    other = mixed_frequencies(jax.random.key(2), 64, DIM)  # another layer's key
    assert np.abs(other - frequencies).max() > 0.1


def test_mixed_without_rotation_is_axial():
    positions = grid_positions(H, W)
    mixed = mixed_angles(positions, mixed_frequencies(jax.random.key(0), 2, DIM, base=100.0, rotate=False))
    axial = axial_angles(positions, rope_frequencies(DIM // 2, 100.0), "xy")
    np.testing.assert_allclose(mixed, np.stack([axial, axial], axis=1), atol=1e-5)


def test_mixed_frequencies_learn():
    """The gradient of a score by a frequency, against differences in float64."""
    with jax.enable_x64(True):
        frequencies = mixed_frequencies(jax.random.key(0), 2, 8, dtype=jnp.float64)
        x, positions = jnp.asarray(normal(0, 6, 2, 8)), grid_positions(2, 3, dtype=jnp.float64)

        @jax.jit
        def loss(frequencies):
            turned = apply_rope(x, mixed_angles(positions, frequencies), token_axis=-3)
            return jnp.sum(jnp.tanh(jnp.einsum("tkd,skd->kts", turned, turned)))

        direction = jnp.asarray(normal(1, *frequencies.shape))
        slope = jnp.vdot(jax.grad(loss)(frequencies), direction)
        step = 1e-6
        difference = (loss(frequencies + step * direction) - loss(frequencies - step * direction)) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-6)
        assert abs(slope) > 1e-3


# ---------------------------------------------------------------------------------------------------------
# Tokens that have no place.


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_class_and_register_tokens_pass_unchanged(dtype):
    x = jnp.asarray(normal(0, 2, 1 + H * W + 4, DIM), dtype)
    angles = axial_angles(grid_positions(H, W), rope_frequencies(DIM // 2))
    got = apply_rope(x, leave_unrotated(angles, first=1, last=4))
    np.testing.assert_array_equal(got[:, :1], x[:, :1])
    np.testing.assert_array_equal(got[:, -4:], x[:, -4:])
    np.testing.assert_array_equal(got[:, 1:-4], apply_rope(x[:, 1:-4], angles))
    with pytest.raises(ValueError, match="leave_unrotated"):
        apply_rope(x, angles)


def test_class_tokens_with_mixed_angles():
    angles = mixed_angles(grid_positions(H, W), mixed_frequencies(jax.random.key(0), HEADS, DIM))
    x = jnp.asarray(normal(0, 1 + H * W, HEADS, DIM), jnp.float32)
    got = apply_rope(x, leave_unrotated(angles, first=1, token_axis=-3), token_axis=-3)
    np.testing.assert_array_equal(got[0], x[0])
    np.testing.assert_array_equal(got[1:], apply_rope(x[1:], angles, token_axis=-3))


# ---------------------------------------------------------------------------------------------------------
# What published models do: each convention written out anew.


def published(name, x, height, width):
    """Rotation of x [H*W, d] as the model's own code words it, in float64 numpy."""
    d, t = x.shape[-1], np.arange(height * width)
    exponents = 4.0 * np.arange(d // 4) / d
    if name in ("roformer", "llama"):
        angles = np.outer(t, 10000.0 ** (-2.0 * np.arange(d // 2) / d))
    elif name == "naver_axial":
        angles = np.hstack([np.outer(t % width, 100.0**-exponents), np.outer(t // width, 100.0**-exponents)])
    elif name == "timm":
        angles = np.hstack([np.outer(t // width, 10000.0**-exponents), np.outer(t % width, 10000.0**-exponents)])
    else:  # dinov3: half-pixel centres over each side, to [-1, 1]; periods; h, then w
        h, w = 2 * (t // width + 0.5) / height - 1, 2 * (t % width + 0.5) / width - 1
        angles = 2 * np.pi * np.hstack([h[:, None] / 100.0**exponents, w[:, None] / 100.0**exponents])
    if name in ("llama", "dinov3"):
        cos, sin = np.tile(np.cos(angles), (1, 2)), np.tile(np.sin(angles), (1, 2))
        return x * cos + np.hstack([-x[:, d // 2 :], x[:, : d // 2]]) * sin
    cos, sin = np.repeat(np.cos(angles), 2, axis=1), np.repeat(np.sin(angles), 2, axis=1)
    return x * cos + np.stack([-x[:, 1::2], x[:, ::2]], axis=-1).reshape(x.shape) * sin


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "naver_mixed"])
def test_presets(name):
    x = normal(0, H * W, DIM)
    preset = PRESETS[name]
    positions = jnp.arange(H * W) if preset.kind == "line" else grid_positions(H, W, preset.coordinates)
    got = apply_rope(jnp.asarray(x, jnp.float32), preset_angles(name, DIM, positions), preset.pairing)
    np.testing.assert_allclose(got, published(name, x, H, W), atol=1e-5)


def test_the_mixed_preset_needs_its_parameters():
    with pytest.raises(ValueError, match="mixed_frequencies"):
        preset_angles("naver_mixed", DIM, grid_positions(H, W))


def test_periods():
    np.testing.assert_allclose(2 * np.pi / period_frequencies(8), [1, 10**0.5, 10, 10**1.5], rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------
# Longer or larger than trained.


def test_interpolated_positions_fill_the_trained_range():
    longer = rope_angles(interpolate_positions(jnp.arange(32), 2.0), rope_frequencies(DIM))
    np.testing.assert_allclose(longer[::2], rope_angles(jnp.arange(16), rope_frequencies(DIM)), rtol=1e-6)
    grid = interpolate_positions(grid_positions(6, 20), [4.0, 2.0])  # trained at 3 x 5
    np.testing.assert_allclose(grid.reshape(6, 20, 2)[::2, ::4].reshape(-1, 2), grid_positions(3, 5))


@pytest.mark.parametrize("scale", [1.5, 2.0, 8.0])
def test_the_ntk_base_keeps_the_fastest_pair_and_divides_the_slowest(scale):
    plain, scaled = rope_frequencies(64), rope_frequencies(64, ntk_base(10000.0, 64, scale))
    np.testing.assert_allclose(ntk_base(10000.0, 64, scale), 10000 * scale ** (64 / 62))
    assert scaled[0] == plain[0] == 1
    np.testing.assert_allclose(scaled[-1], plain[-1] / scale, rtol=1e-5)
    assert (np.diff(plain / scaled) > 0).all()
    # The lowest frequency sees what interpolated positions would show it.
    there = rope_angles(jnp.arange(100), scaled)[:, -1]
    np.testing.assert_allclose(
        there, rope_angles(interpolate_positions(jnp.arange(100), scale), plain)[:, -1], rtol=1e-5
    )


def test_on_a_rectangle_each_axis_has_a_base_of_its_own():
    scale = {"x": 3.0, "y": 2.0}
    plain = rope_frequencies(DIM // 2, 100.0)
    bases = [ntk_base(100.0, DIM // 2, scale[axis]) for axis in "xy"]
    np.testing.assert_allclose(bases[0], 100 * 3 ** (DIM / (DIM - 4)))
    frequencies = jnp.stack([rope_frequencies(DIM // 2, base) for base in bases])
    for order in ("xy", "yx"):
        angles = axial_angles(grid_positions(6, 15), frequencies, order)
        before = axial_angles(grid_positions(6, 15), plain, order)
        for axis, block in zip(order, np.split(np.asarray(before / angles)[-1], 2), strict=True):
            np.testing.assert_allclose(block[[0, -1]], [1, scale[axis]], rtol=1e-5)


def test_ntk_of_mixed_frequencies_is_another_base_where_nothing_is_learned_yet():
    key = jax.random.key(0)
    plain = mixed_frequencies(key, HEADS, DIM)
    based = mixed_frequencies(key, HEADS, DIM, base=ntk_base(10.0, DIM // 2, 2.0))
    np.testing.assert_allclose(ntk_mixed_frequencies(plain, 2.0), based, rtol=1e-5, atol=1e-6)
    apart = ntk_mixed_frequencies(plain, (2.0, 1.0))
    np.testing.assert_array_equal(apart[1], plain[1])
    np.testing.assert_allclose(apart[0], based[0], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------
# Refusals.

REFUSED = {
    "an empty grid": (lambda: grid_positions(0, 3), "0x3"),
    "unknown coordinates": (lambda: grid_positions(2, 3, "ij"), "one of index, separate, max, min"),
    "a line on a grid": (lambda: axial_angles(jnp.arange(4), jnp.ones(4)), "columns \\(x, y\\)"),
    "three columns": (lambda: mixed_angles(jnp.zeros((4, 3)), jnp.ones((2, 1, 4))), "columns \\(x, y\\)"),
    "three axes of frequencies": (lambda: axial_angles(jnp.zeros((4, 2)), jnp.ones((3, 4))), "neither"),
    "unknown order": (lambda: axial_angles(jnp.zeros((4, 2)), jnp.ones(4), "hw"), "one of xy, yx"),
    "a head of 6 in two axes": (lambda: rope_frequencies(6 // 2), "must be even"),
    "mixed heads of 6": (lambda: mixed_frequencies(jax.random.key(0), 2, 6), "multiple of 4"),
    "mixed of all layers": (lambda: mixed_angles(jnp.zeros((4, 2)), jnp.ones((2, 5, 1, 4))), "\\[2, K, Dh/2\\]"),
    "bfloat16 frequencies": (lambda: mixed_angles(jnp.zeros((4, 2)), jnp.ones((2, 1, 4), jnp.bfloat16)), "use float32"),
    "padding of channels": (lambda: leave_unrotated(jnp.zeros((4, 4)), first=1, token_axis=-1), "not one of tokens"),
    "a preset's width": (lambda: preset_angles("dinov3", 10, grid_positions(2, 2)), "multiple of 4"),
    "unknown preset": (lambda: preset_angles("eva", 8, grid_positions(2, 2)), "naver_axial"),
    "scale 0": (lambda: interpolate_positions(jnp.arange(4), 0.0), "positive"),
    "three scales": (lambda: interpolate_positions(jnp.zeros((4, 2)), (1.0, 2.0, 3.0)), "two for"),
    "two scales for a line": (lambda: interpolate_positions(jnp.arange(4), (2.0, 2.0)), "columns"),
    "one frequency": (lambda: ntk_base(100.0, 2, 2.0), "one frequency"),
    "mixed with one magnitude": (lambda: ntk_mixed_frequencies(jnp.ones((2, 1, 2)), 2.0), "2 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
