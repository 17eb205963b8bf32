"""Lab against values of scikit-image, by hand on greys, and by its laws."""

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.layers.colour import lab_to_rgb, rgb_to_lab

# skimage.color.rgb2lab of scikit-image 0.26.0, which has six decimals of the matrix where the standard has four.
COLOURS = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0.2, 0.4, 0.7]])
LAB = [
    [100, -0.002455, 0.004653],
    [0, 0, 0],
    [53.240588, 80.092308, 67.202751],
    [87.735099, -86.18303, 83.179703],
    [32.295673, 79.185591, -107.8573],
    [53.388965, -0.001468, 0.002784],
    [43.417902, 9.193576, -45.661225],
]


def images(pixels):
    """Pixels [n, 3] as one image [1, 1, n, 3]."""
    return jnp.asarray(np.array(pixels)[None, None], jnp.float32)


def test_colours_have_the_values_of_scikit_image():
    np.testing.assert_allclose(rgb_to_lab(images(2 * COLOURS - 1))[0, 0], LAB, atol=0.03)
    np.testing.assert_allclose(lab_to_rgb(images(LAB))[0, 0], 2 * COLOURS - 1, atol=5e-3)


def test_greys_by_hand():
    """L = 116 Y^(1/3) - 16, or (29/3)^3 Y below Y = 0.00886; sRGB is a power of 2.4, or a line below 0.04045."""
    half = 1.055 * (66 / 116) ** (3 / 2.4) - 0.055  # L = 50
    dark = 0.02  # Y = 0.02 / 12.92
    found = rgb_to_lab(images([[2 * half - 1] * 3, [2 * dark - 1] * 3]))[0, 0]
    np.testing.assert_allclose(found, [[50, 0, 0], [(29 / 3) ** 3 * 0.02 / 12.92, 0, 0]], atol=1e-4)


def test_there_and_back():
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 12)] * 3), axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(lab_to_rgb(rgb_to_lab(images(grid)))[0, 0], grid, atol=1e-4)


def test_colours_out_of_gamut_are_left_to_the_caller():
    """A new a and b leave L as it is, unless the caller clips what then is no colour of a screen."""
    lab = images([[50, 120, -90], [90, -100, 100], [5, 60, 0]])
    rgb = lab_to_rgb(lab)
    assert (jnp.abs(rgb).max(axis=-1) > 1.01).all()
    np.testing.assert_allclose(rgb_to_lab(rgb), lab, atol=1e-2)
    assert jnp.abs(rgb_to_lab(jnp.clip(rgb, -1, 1)) - lab)[..., 0].max() > 1


def test_gradients_of_black_are_finite_and_right():
    """Of L with respect to grey: (29/3)^3 / 12.92 / 2, the slope of both straight lines."""
    black = images([[-1, -1, -1]])
    to_lab = jax.jit(jax.jacobian(lambda x: rgb_to_lab(x)[0, 0, 0]))(black)[:, 0, 0, 0]
    np.testing.assert_allclose(to_lab.sum(axis=1), [(29 / 3) ** 3 / 12.92 / 2, 0, 0], atol=1e-3)
    back = jax.jit(jax.jacobian(lambda x: lab_to_rgb(x)[0, 0, 0]))(images([[0, 0, 0]]))[:, 0, 0, 0]
    np.testing.assert_allclose(back @ to_lab, np.eye(3), atol=1e-3)


def test_gradients_out_of_gamut_are_finite():
    """Where the power's base would be negative."""
    for function, pixels in ((rgb_to_lab, [[-1.5, 0, 0]]), (lab_to_rgb, [[0, 90, 90], [-5, 0, 0]])):
        slope = jax.jit(jax.grad(lambda x, function=function: jnp.sum(function(x))))(images(pixels))
        assert np.isfinite(slope).all()
