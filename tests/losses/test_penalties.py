"""Penalties against closed forms: a linear and a quadratic critic, whose gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.losses.penalties import PENALTIES, estimated_squared_norms, r1, r2

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(3, 2, 1))
REAL, FAKE = RNG.normal(size=(2, 5, 3, 2, 1))
NORM = np.sqrt(np.sum(WEIGHTS**2))


def linear(images):
    return jnp.einsum("bhwc,hwc->b", images, jnp.asarray(WEIGHTS, images.dtype)) + 7


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_of_a_linear_critic_only_the_slope_counts(dtype, tolerance):
    expected = {"r1": NORM**2 / 2, "r2": NORM**2 / 2, "gradient_penalty": (NORM - 1) ** 2, "dragan": (NORM - 1) ** 2}
    assert expected.keys() == PENALTIES.keys()
    for kind, penalty in PENALTIES.items():
        value = penalty(linear, KEY, jnp.asarray(REAL, dtype), jnp.asarray(FAKE, dtype))
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected[kind], rtol=tolerance)


def test_each_penalty_looks_where_it_should():
    """The gradient of |x|^2 / 2 is x: norms are those of the points themselves."""
    quadratic = lambda images: jnp.sum(jnp.square(images), axis=(1, 2, 3)) / 2  # noqa: E731
    real, fake = jnp.asarray(REAL, jnp.float32), jnp.asarray(FAKE, jnp.float32)
    squares = {name: np.sum(images**2, axis=(1, 2, 3)) for name, images in (("r1", REAL), ("r2", FAKE))}
    for kind, of_images in squares.items():
        np.testing.assert_allclose(PENALTIES[kind](quadratic, KEY, real, fake), of_images.mean() / 2, rtol=1e-5)
    # Between a point and itself there is that point alone.
    np.testing.assert_allclose(
        PENALTIES["gradient_penalty"](quadratic, KEY, real, real), np.mean((np.sqrt(squares["r1"]) - 1) ** 2), rtol=1e-5
    )
    seen = []
    PENALTIES["gradient_penalty"](lambda images: seen.append(images) or quadratic(images), KEY, real, fake)
    share = np.asarray((seen[0].primal if hasattr(seen[0], "primal") else seen[0]) - real) / (FAKE - REAL)
    assert np.ptp(share.reshape(5, -1), axis=1).max() < 1e-4  # one for each image
    assert 0 < share.min() < share.max() < 1
    # DRAGAN's points are near the real images, above them by at most half a standard deviation.
    PENALTIES["dragan"](lambda images: seen.append(images) or quadratic(images), KEY, real, fake)
    moved = np.asarray((seen[1].primal if hasattr(seen[1], "primal") else seen[1]) - real) / REAL.std()
    assert 0 <= moved.min() < moved.max() < 0.5


def test_several_logits_of_an_image_count_by_their_mean():
    patches = lambda images: linear(images)[:, None, None] * jnp.array([[[1.0, 3.0]]])  # noqa: E731
    real = jnp.asarray(REAL, jnp.float32)
    np.testing.assert_allclose(PENALTIES["r1"](patches, KEY, real, real), (2 * NORM) ** 2 / 2, rtol=1e-5)


def test_a_flat_critic_has_a_gradient():
    """The root of a squared norm has none at 0."""
    flat = lambda scale: PENALTIES["gradient_penalty"](  # noqa: E731
        lambda images: scale * linear(images), KEY, jnp.asarray(REAL, jnp.float32), jnp.asarray(FAKE, jnp.float32)
    )
    assert np.isfinite(jax.grad(flat)(0.0))
    np.testing.assert_allclose(jax.grad(flat)(2.0), 2 * (2 * NORM - 1) * NORM, rtol=1e-4)


def test_the_estimate_has_the_mean_and_the_spread_that_it_says():
    """Of a linear critic exactly (g . e)^2: mean |g|^2, standard deviation sqrt(2) |g|^2."""
    images = jnp.zeros((20_000, 3, 2, 1))
    found = np.asarray(estimated_squared_norms(linear, images, jax.random.key(0), 0.01))
    np.testing.assert_allclose(found.mean(), NORM**2, rtol=0.05)
    np.testing.assert_allclose(found.std(), 2**0.5 * NORM**2, rtol=0.1)


def test_the_estimates_error_falls_with_the_square_of_its_size():
    """Of l(x) = x^3 / 3 at x = 1: E[((1 + s e)^3 - 1)^2] / 9 s^2 = 1 + 5 s^2 + 15 s^4 / 9, for a normal e."""
    images, found = jnp.ones((400_000, 1, 1, 1)), {}
    with jax.enable_x64(True):
        images = images.astype(jnp.float64)
        for size in (0.05, 0.2):
            estimate = estimated_squared_norms(lambda x: x[:, 0, 0, 0] ** 3 / 3, images, jax.random.key(1), size)
            found[size] = float(estimate.mean())
            assert found[size] == pytest.approx(1 + 5 * size**2 + 15 / 9 * size**4, rel=0.02)


@pytest.mark.parametrize("penalty", [r1, r2])
def test_estimated_penalties_are_half_the_mean(penalty):
    real, fake = jnp.zeros((4, 3, 2, 1)), jnp.ones((4, 3, 2, 1))
    key = jax.random.key(0)
    at = real if penalty is r1 else fake
    expected = estimated_squared_norms(linear, at, key, 0.1).mean() / 2
    np.testing.assert_allclose(penalty(linear, key, real, fake, 0.1), expected, rtol=1e-6)
