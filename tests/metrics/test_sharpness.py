"""The gradient's energy of images of which it is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gormley_vision.metrics.sharpness import gradient_energy


def test_of_a_checkerboard_a_ramp_and_a_constant():
    rows, columns = np.indices((5, 7))
    board = np.where((rows + columns) % 2, 1.0, -1.0)
    images = np.stack([board, 3.0 * rows + columns, np.ones((5, 7))])[..., None].astype(np.float32)
    np.testing.assert_allclose(gradient_energy(images), [4 + 4, 9 + 1, 0], rtol=1e-6)


def test_of_a_sine_along_either_axis():
    """A difference of sin(2 pi x / P) is 2 sin(pi / P) cos(...); its square has the mean 2 sin^2(pi / P)."""
    wave = 0.7 * np.sin(2 * np.pi * np.arange(25) / 8)  # three periods of differences
    image = np.broadcast_to(wave[None, :, None], (6, 25, 3)).astype(np.float32)
    wanted = 0.7**2 * 2 * np.sin(np.pi / 8) ** 2
    np.testing.assert_allclose(gradient_energy(image[None]), [wanted], rtol=1e-5)
    np.testing.assert_allclose(gradient_energy(image.swapaxes(0, 1)[None]), [wanted], rtol=1e-5)


def test_blur_lowers_it_and_bytes_do_not_wrap_around():
    noise = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    images = np.stack([noise, gaussian_filter(noise, 1)])[..., None]
    sharp, blurred = gradient_energy(images)
    assert blurred < sharp / 10
    np.testing.assert_allclose(gradient_energy(images.astype(np.float32)), [sharp, blurred])


def test_a_row_has_no_differences():
    with pytest.raises(ValueError, match="1x5 pixels"):
        gradient_energy(np.zeros((2, 1, 5, 3)))
