"""Partial convolution against loops over windows and by its laws; gated convolution against scipy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from gormley_vision.layers.gan import Convolution
from gormley_vision.layers.holes import GatedConvolution, PartialConvolution

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 7, 6, 3)).astype(np.float32)
MASK = RNG.random((2, 7, 6, 1)) < 0.4
MASK[1, :4, :4] = False  # windows in which nothing is known
BIAS = np.array([0.5, -1, 2, 3], np.float32)


def partial(size=3, stride=1, padding=(1, 1)):
    """A layer, its variables with a bias that is not 0, and its kernel."""
    layer = PartialConvolution(4, size, stride, padding)
    variables = nn.unbox(layer.init(jax.random.key(0), jnp.asarray(IMAGES), jnp.asarray(MASK)))
    kernel = variables["params"]["Convolution_0"]["kernel"]
    return layer, {"params": variables["params"] | {"bias": jnp.asarray(BIAS)}}, np.asarray(kernel)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, (1, 1)), (4, 2, (1, 1))])
def test_partial_convolution_by_loops(size, stride, padding):
    layer, variables, kernel = partial(size, stride, padding)
    found, mask = layer.apply(variables, IMAGES, MASK)
    pads = ((0, 0), padding, padding, (0, 0))
    x, m = np.pad(IMAGES, pads), np.pad(MASK, pads)
    assert not mask.all()
    for b, i, j in np.ndindex(found.shape[:3]):
        window = np.s_[b, i * stride : i * stride + size, j * stride : j * stride + size]
        known = m[window].sum()
        assert mask[b, i, j, 0] == (known > 0)
        product = np.einsum("hwc,hwco->o", x[window] * m[window], kernel)
        wanted = product * size**2 / known + BIAS if known else np.zeros(4)
        np.testing.assert_allclose(found[b, i, j], wanted, atol=1e-5)


def test_without_a_hole_only_borders_differ_from_a_convolution():
    layer, variables, kernel = partial()
    found, mask = layer.apply(variables, IMAGES, np.ones_like(MASK))
    assert mask.all()
    plain = Convolution(4, 3, 1, (1, 1)).apply({"params": {"kernel": kernel}}, IMAGES)
    factor = 9 / np.outer([2, 3, 3, 3, 3, 3, 2], [2, 3, 3, 3, 3, 2])  # rows and columns of a window that are inside
    np.testing.assert_allclose(found, np.asarray(plain) * factor[:, :, None] + BIAS, atol=1e-5)


def test_what_is_under_the_mask_never_matters():
    layer, variables, _ = partial()
    clean, _ = layer.apply(variables, IMAGES, MASK)
    soiled, _ = layer.apply(variables, np.where(MASK, IMAGES, np.nan).astype(np.float32), MASK)
    np.testing.assert_array_equal(soiled, clean)
    slope = jax.grad(lambda x: jnp.sum(jnp.square(layer.apply(variables, x, MASK)[0])))(jnp.asarray(IMAGES))
    np.testing.assert_array_equal(np.any(slope != 0, axis=-1), MASK[..., 0])


def test_a_mask_grows_by_a_pixel_a_layer_until_it_is_whole():
    layer, variables, _ = partial()
    mask = np.ones((1, 9, 9, 1), bool)
    mask[:, 2:7, 2:7] = False
    for left in (9, 1, 0):  # of a hole of 5x5
        _, grown = layer.apply(variables, np.zeros((1, 9, 9, 3), np.float32), mask)
        assert (grown | ~mask).all()
        assert (~grown).sum() == left
        mask = grown


def test_gated_convolution_by_scipy():
    layer = GatedConvolution(2, 3, 1, (1, 1))
    variables = nn.unbox(layer.init(jax.random.key(0), IMAGES))
    kernel = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"Convolution_0": {"kernel": kernel.shape, "bias": (4,)}}}
    found = layer.apply({"params": {"Convolution_0": {"kernel": kernel, "bias": BIAS}}}, IMAGES)
    maps = [
        sum(correlate2d(IMAGES[0, :, :, c], kernel[:, :, c, o], "same") for c in range(3)) + BIAS[o] for o in range(4)
    ]
    for channel in (0, 1):
        features, gate = maps[channel], maps[channel + 2]
        elu = np.where(features > 0, features, np.expm1(np.minimum(features, 0)))
        np.testing.assert_allclose(found[0, :, :, channel], elu / (1 + np.exp(-gate)), atol=1e-4)
