"""The three operations against `lax.conv` and its own derivatives, value by value and derivative by derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gormley_vision.layers import convolution
from gormley_vision.layers.convolution import convolve, convolve_groups, convolve_transposed

# (height, width, channels, features, kernel, stride, padding)
SHAPES = [
    (8, 8, 3, 5, 4, 2, (1, 1)),
    (8, 12, 17, 5, 4, 2, (1, 1)),
    (8, 8, 3, 20, 5, 2, (2, 1)),
    (10, 8, 18, 4, 5, 2, (2, 1)),
    (7, 9, 18, 3, 4, 2, (1, 1)),
    (7, 9, 2, 3, 4, 2, (1, 1)),
    (6, 7, 20, 3, 4, 1, (1, 1)),
    (6, 7, 2, 3, 4, 1, (1, 1)),
    (5, 5, 20, 3, 1, 1, (0, 0)),
    (5, 5, 20, 18, 1, 1, (0, 0)),
    (6, 5, 20, 18, 1, 2, (0, 0)),
    (6, 7, 20, 3, 5, 1, (0, 3)),
    (6, 7, 20, 3, 2, 1, (2, 1)),  # padding as wide as the kernel
    (9, 9, 20, 3, 3, 3, (0, 1)),
    (9, 9, 2, 3, 3, 3, (0, 1)),
    (9, 9, 2, 3, 2, 3, (0, 0)),
    # More features than the 4 images' output pixels, where the CPU multiplies by the kernel as it lies.
    (4, 4, 20, 17, 4, 2, (1, 1)),
    (7, 9, 5, 50, 4, 2, (1, 1)),
    (4, 3, 2, 60, 3, 1, (0, 2)),
    (9, 9, 2, 40, 2, 3, (0, 0)),
]


def reference(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def close(ours, theirs, error=1e-5):
    # float32 sums of some hundred products: a relative error of 1e-5 of the largest entry.
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=error * float(jnp.abs(b).max() + 1), rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_lax_conv_in_value_first_and_second_derivatives(shape):
    height, width, channels, features, size, stride, padding = shape
    with jax.enable_x64(True):  # the sine of a large gradient makes much of a rounding
        keys = jax.random.split(jax.random.key(sum(shape[:6])), 4)
        x = jax.random.normal(keys[0], (4, height, width, channels))
        kernel = jax.random.normal(keys[1], (size, size, channels, features))
        narrow_shape = jax.eval_shape(lambda: reference(x, kernel, stride, padding)).shape
        weights = jax.random.normal(keys[2], narrow_shape)

        def everything(conv):
            def value(x, kernel):
                return jnp.sum(weights * jnp.tanh(conv(x, kernel)))

            def penalty(x, kernel):  # the shape of a gradient penalty: a norm of a gradient, differentiated again
                first = jax.grad(value, argnums=(0, 1))(x, kernel)
                return sum(jnp.sum(jnp.sin(g)) for g in first)

            return conv(x, kernel), jax.grad(value, (0, 1))(x, kernel), jax.grad(penalty, (0, 1))(x, kernel)

        ours = jax.jit(lambda: everything(lambda x, k: convolve(x, k, stride=stride, padding=padding)))()
        theirs = jax.jit(lambda: everything(lambda x, k: reference(x, k, stride, padding)))()
        assert ours[0].dtype == jnp.float64
        close(ours, theirs, error=1e-12)


@pytest.mark.parametrize("features", [6, 40])  # 40 is more than the 32 pixels
@pytest.mark.parametrize(("size", "channels"), [(4, 3), (4, 20), (5, 3), (5, 20)])
def test_transposed_is_the_adjoint(size, channels, features):
    """<convolve(x), y> = <x, convolve_transposed(y)> for all x and y: what "transposed" means."""
    padding = {4: (1, 1), 5: (2, 1)}[size]
    keys = jax.random.split(jax.random.key(size), 3)
    x = jax.random.normal(keys[0], (2, 8, 8, channels))
    y = jax.random.normal(keys[1], (2, 4, 4, features))
    kernel = jax.random.normal(keys[2], (size, size, channels, features))
    left = jnp.vdot(convolve(x, kernel, stride=2, padding=padding), y)
    right = jnp.vdot(x, convolve_transposed(y, kernel, stride=2, padding=padding))
    np.testing.assert_allclose(left, right, rtol=2e-5)


def test_transposed_equals_lax_conv_transpose_and_its_gradients():
    """flax's ConvTranspose is `lax.conv_transpose`; with padding SAME a 4x4 kernel doubles the size as here."""
    keys = jax.random.split(jax.random.key(1), 2)
    y, kernel = jax.random.normal(keys[0], (2, 5, 6, 7)), jax.random.normal(keys[1], (4, 4, 20, 7))

    def ours(y, kernel):
        return convolve_transposed(y, kernel, stride=2, padding=(1, 1))

    def theirs(y, kernel):
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        return lax.conv_transpose(y, flipped, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def gradients(f):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1))(y, kernel)

    close((ours(y, kernel), gradients(ours)), (theirs(y, kernel), gradients(theirs)))


def test_a_two_by_two_transposed_convolution_by_hand():
    y = jnp.array([[1.0, 2.0]]).reshape(1, 1, 2, 1)
    kernel = jnp.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(2, 2, 1, 1)
    wide = convolve_transposed(y, kernel, stride=2, padding=(0, 0))
    np.testing.assert_array_equal(wide[0, :, :, 0], [[1, 10, 2, 20], [100, 1000, 200, 2000]])


@pytest.mark.parametrize(("platform", "convolutions"), [("tpu", 1), ("cpu", 4)])
def test_other_platforms_lower_to_native_convolutions(platform, convolutions, monkeypatch):
    """A TPU must get XLA's own dilated convolutions, whatever machine compiles for it."""
    monkeypatch.setattr(convolution, "mesh_platform", lambda: platform)

    def f(y, kernel):
        return convolve_transposed(y, kernel, stride=2, padding=(1, 1))

    shapes = (
        jax.ShapeDtypeStruct((4, 8, 8, 32), jnp.float32),
        jax.ShapeDtypeStruct((4, 4, 32, 32), jnp.float32),
    )
    text = jax.jit(f).lower(*shapes).as_text()
    assert text.count("stablehlo.convolution") == convolutions
    assert ("lhs_dilate = [2, 2]" in text) == (platform == "tpu")


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        convolve(jnp.zeros((1, 1, 1, 1)), jnp.zeros((4, 4, 1, 1)), stride=2, padding=(0, 0))
    with pytest.raises(ValueError, match="does not multiply"):
        convolve_transposed(jnp.zeros((1, 4, 4, 1)), jnp.zeros((4, 4, 1, 1)), stride=2, padding=(0, 0))


@pytest.mark.parametrize(("channels", "width"), [(96, 16), (8, 4), (160, 16)])
def test_groups_are_convolved_by_themselves(channels, width, monkeypatch):
    """Joined on a CPU, and as elsewhere: values and both gradients of XLA's own; 160 channels are 64, 64 and 32."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 5, 4, channels))
    kernel = jax.random.normal(keys[1], (3, 3, width, channels))
    weights = jax.random.normal(keys[2], x.shape)

    def own(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        groups = channels // width
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=groups
        )

    def both(function):
        return jax.jit(lambda x, kernel: (*jax.vjp(function, x, kernel)[1](weights), function(x, kernel)))(x, kernel)

    expected = both(own)
    joined = both(convolve_groups)
    monkeypatch.setattr(convolution, "mesh_platform", lambda: "tpu")
    for found in (joined, both(convolve_groups)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
