"""`imresize` against a slow double loop, closed forms and Pillow; pixel shuffling in PyTorch's order, by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gormley_vision.layers.resampling import imresize, pixel_shuffle

SCALES = [1 / 2, 1 / 3, 1 / 4, 2, 3]


def images(height, width, channels=1):
    return jax.random.normal(jax.random.key(height), (2, height, width, channels))


def keys_kernel(x):
    """Keys 1981 by its pieces, with a = -1/2."""
    x, a = abs(x), -0.5
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def slow_row(row, factor, antialias=True):
    """MATLAB's description for one row, pixel by pixel and tap by tap, numbered from 1 as there."""
    stretch = 1 / factor if factor < 1 and antialias else 1
    padded = np.pad(row, 40, mode="symmetric")
    out = []
    for x in range(1, math.ceil(len(row) * factor) + 1):
        u = x / factor + 0.5 * (1 - 1 / factor)
        weights = [keys_kernel((u - tap) / stretch) for tap in range(1 - 40, len(row) + 41)]
        out.append(np.dot(weights, padded) / sum(weights))
    return np.array(out)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("factor", [*SCALES, 0.7, 1.6])
def test_equals_a_double_loop(factor, antialias):
    x = images(9, 12, 2)
    expected = np.apply_along_axis(slow_row, 1, np.asarray(x, np.float64), factor, antialias)
    expected = np.apply_along_axis(slow_row, 2, expected, factor, antialias)
    np.testing.assert_allclose(imresize(x, factor, antialias=antialias), expected, atol=2e-6)


def test_the_factor_of_a_side_follows_from_its_size():
    """7 x 10 to 14 x 5 is twice the height and half the width."""
    x = images(7, 10)
    expected = np.apply_along_axis(slow_row, 1, np.asarray(x, np.float64), 2)
    expected = np.apply_along_axis(slow_row, 2, expected, 0.5)
    np.testing.assert_allclose(imresize(x, (14, 5)), expected, atol=2e-6)


def test_sides_are_rounded_up_but_not_by_an_error_of_floating_point():
    assert imresize(images(7, 10), 1 / 3).shape == (2, 3, 4, 1)
    assert imresize(images(50, 7), 1.1).shape == (2, 55, 8, 1)  # 50 * 1.1 > 55


@pytest.mark.parametrize("factor", SCALES)
def test_keeps_constants_and_ramps(factor):
    """A ramp keeps its values at the new pixels' centres, where no tap is in the mirrored border."""
    ramp = np.arange(48.0) - 20
    x = np.stack([np.broadcast_to(ramp[:, None], (48, 48)), np.full((48, 48), 3.0)], axis=-1)[None]
    resized = np.asarray(imresize(jnp.asarray(x, jnp.float32), factor))[0]
    size = round(48 * factor)
    np.testing.assert_allclose(resized[:, :, 1], np.full((size, size), 3.0), rtol=1e-6)
    border = math.ceil(2 * max(1, factor))
    centres = (np.arange(size) + 0.5) / factor - 0.5
    expected = np.broadcast_to((centres - 20)[:, None], (size, size))
    np.testing.assert_allclose(resized[border:-border, :, 0], expected[border:-border], atol=1e-5)


def test_is_linear():
    x, y = images(9, 12), images(12, 9).swapaxes(1, 2)
    np.testing.assert_allclose(imresize(2 * x - y, 0.7), 2 * imresize(x, 0.7) - imresize(y, 0.7), atol=2e-6)


def test_the_highest_frequency_vanishes_only_with_antialiasing():
    """Stripes of 1, -1 at a third, which has a pixel's centre on each third one: 1/81 remains, by the kernel's values.

    With k(0) = 1, k(1/3) = 7/9, k(2/3) = 1/3, k(1) = 0, k(4/3) = -2/27, k(5/3) = -1/27 the weighted sum of alternating
    signs is (1 - 14/9 + 2/3 - 4/27 + 2/27) / 3.
    """
    stripes = jnp.broadcast_to((-1.0) ** jnp.arange(30)[None, None, :, None], (1, 30, 30, 1))
    np.testing.assert_allclose(jnp.abs(imresize(stripes, 1 / 3))[0, :, 2:-2, 0], np.full((10, 6), 1 / 81), rtol=1e-3)
    aliased = imresize(stripes, 1 / 3, antialias=False)
    np.testing.assert_allclose(aliased, stripes[:, :10, 1::3], atol=1e-6)


@pytest.mark.parametrize("factor", [*SCALES, 0.7])
def test_equals_pillow_inside(factor):
    """Pillow leaves out taps outside the image; inside, its bicubic is the same. Mode F is not rounded."""
    x = np.asarray(images(60, 60))[0, :, :, 0]
    size = round(60 * factor)
    expected = np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC))
    ours = np.asarray(imresize(x[None, :, :, None], factor))[0, :, :, 0]
    inside = (slice(math.ceil(2 * max(1, factor)), -math.ceil(2 * max(1, factor))),) * 2
    np.testing.assert_allclose(ours[inside], expected[inside], atol=5e-6)
    assert np.abs(ours - expected).max() > 1e-3


def test_results_are_float32_and_have_a_gradient():
    x = images(6, 6)
    assert imresize(x.astype(jnp.bfloat16), 0.5).dtype == jnp.float32
    assert imresize((x * 100).astype(jnp.int8), 0.5).dtype == jnp.float32
    gradient = jax.grad(lambda x: imresize(x, 0.5).sum())(x)
    np.testing.assert_allclose(gradient.sum(), 2 * 9, rtol=1e-5)  # each of 9 pixels is a mean, of 2 images


@pytest.mark.parametrize("to", [0, -1.0, (0, 5)])
def test_nothing_is_not_a_size(to):
    with pytest.raises(ValueError, match="positive"):
        imresize(images(6, 6), to)


def test_pixel_shuffle_by_hand_in_the_order_of_pytorch():
    """torch.nn.PixelShuffle(2) of channels 0..7 at one place: channels 0..3 are the first output channel's square."""
    x = jnp.arange(8).reshape(1, 1, 1, 8)
    expected = np.array([[[0, 4], [1, 5]], [[2, 6], [3, 7]]])  # [row, column, channel]
    np.testing.assert_array_equal(pixel_shuffle(x, 2)[0], expected)
    # A second place to the right stays to the right.
    x = jnp.arange(8).reshape(1, 1, 2, 4)
    np.testing.assert_array_equal(pixel_shuffle(x, 2)[0, :, :, 0], [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_equals_pytorch():
    torch = pytest.importorskip("torch")
    x = np.arange(2 * 3 * 5 * 18.0).reshape(2, 3, 5, 18)
    theirs = torch.nn.PixelShuffle(3)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_array_equal(pixel_shuffle(jnp.asarray(x), 3), theirs.transpose(0, 2, 3, 1))
