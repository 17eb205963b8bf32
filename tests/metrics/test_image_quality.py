"""PSNR and SSIM by closed forms, and against scikit-image where it is installed."""

import math

import numpy as np
import pytest

from gormley_vision.metrics.image_quality import luma, psnr, ssim, without_border


def test_psnr_by_hand():
    target = np.full((4, 5, 3), 100, np.uint8)
    assert psnr(target + np.uint8(5), target) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(target, target) == math.inf
    with pytest.raises(ValueError, match="one of its shape"):
        psnr(target, target[:3])


def test_luma_of_black_white_and_primaries():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    np.testing.assert_allclose(luma(colours)[0], [16, 235, 81.481, 144.553, 40.966], atol=1e-3)


def test_ssim_of_constants_is_the_luminance_term():
    x, y, c1 = 60.0, 90.0, (0.01 * 255) ** 2
    wanted = (2 * x * y + c1) / (x * x + y * y + c1)
    assert ssim(np.full((12, 13), x), np.full((12, 13), y)) == pytest.approx(wanted)


def test_ssim_of_a_negative_by_hand():
    # One window: mean 0 by choice, so the luminance term is 1 and the structure term (c2 - 2 v) / (c2 + 2 v).
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    image = np.random.default_rng(0).normal(0, 40, (11, 11))
    image -= np.sum(weights * image)
    variance, c2 = np.sum(weights * image**2), (0.03 * 255) ** 2
    assert ssim(image, -image) == pytest.approx((c2 - 2 * variance) / (c2 + 2 * variance))


def test_borders():
    assert without_border(np.zeros((9, 7, 3)), 2).shape == (5, 3, 3)
    assert without_border(np.zeros((9, 7)), 0).shape == (9, 7)
    with pytest.raises(ValueError, match="no pixels within a border of 4"):
        without_border(np.zeros((9, 8)), 4)
    with pytest.raises(ValueError, match="11x11"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))


def test_as_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    color = pytest.importorskip("skimage.color")
    draw = np.random.default_rng(0)
    a = draw.integers(0, 256, (33, 41, 3)).astype(np.uint8)
    b = np.clip(a + draw.normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    assert psnr(a, b) == pytest.approx(metrics.peak_signal_noise_ratio(b, a), rel=1e-12)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    wanted = metrics.structural_similarity(a, b, channel_axis=-1, **options)
    assert ssim(a, b) == pytest.approx(wanted, rel=1e-9)
    np.testing.assert_allclose(luma(a), color.rgb2ycbcr(a)[..., 0], rtol=1e-9)
    assert ssim(luma(a), luma(b)) == pytest.approx(metrics.structural_similarity(luma(a), luma(b), **options))
