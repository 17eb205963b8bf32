"""How near an image is to its target: PSNR and SSIM, on RGB or on luma, as super-resolution reports them."""

import numpy as np
from scipy.ndimage import correlate1d

RADIUS, SIGMA = 5, 1.5  # of SSIM's window, pixels
K1, K2 = 0.01, 0.03


def luma(images: np.ndarray) -> np.ndarray:
    """Return Y [..., H, W] in [16, 235] of RGB [..., H, W, 3] in [0, 255]: ITU-R BT.601, as MATLAB's rgb2ycbcr.

    Not rounded, as in most super-resolution code that computes from uint8 images.
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return np.asarray(images, np.float64) @ weights + 16


def without_border(images: np.ndarray, pixels: int) -> np.ndarray:
    """Cut `pixels` from each side of [H, W] or [H, W, C]: super-resolution by s leaves out s pixels, which lack input.

    Raises:
        ValueError: nothing would be left.
    """
    if min(images.shape[:2]) <= 2 * pixels:
        raise ValueError(f"an image of {images.shape[0]}x{images.shape[1]} has no pixels within a border of {pixels}")
    return images[pixels : images.shape[0] - pixels, pixels : images.shape[1] - pixels]


def psnr(image: np.ndarray, target: np.ndarray, peak: float = 255.0) -> float:
    """Return 10 log10(peak^2 / mean squared error) in decibels of two images of one shape; infinite for equal ones."""
    _refuse_unlike(image, target)
    error = np.mean((np.asarray(image, np.float64) - np.asarray(target, np.float64)) ** 2)
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(image: np.ndarray, target: np.ndarray, peak: float = 255.0) -> float:
    """Return the mean structural similarity of [H, W] or [H, W, C]; of channels, the mean.

    Wang et al. 2004, "Image quality assessment", equation 13: windows of 11x11 pixels weighted by a Gaussian of 1.5,
    biased variances, C1 = (0.01 peak)^2, C2 = (0.03 peak)^2, and only windows within the image, as in the authors' code
    and skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False).

    Raises:
        ValueError: unlike shapes, or an image smaller than a window.
    """
    _refuse_unlike(image, target)
    if min(image.shape[:2]) <= 2 * RADIUS:
        raise ValueError(f"SSIM needs at least 11x11 pixels: {image.shape[0]}x{image.shape[1]} given")
    x, y = np.asarray(image, np.float64), np.asarray(target, np.float64)
    mean_x, mean_y = _window(x), _window(y)
    var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    likeness /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(likeness.mean())


def _window(x: np.ndarray) -> np.ndarray:
    """Return the weighted means of all windows within [H, W, ...]: [H - 10, W - 10, ...]."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    for axis in (0, 1):
        x = correlate1d(x, weights / weights.sum(), axis)
    return without_border(x, RADIUS)


def _refuse_unlike(image: np.ndarray, target: np.ndarray) -> None:
    if image.shape != target.shape:
        raise ValueError(f"an image {image.shape} is compared with one of its shape, not {target.shape}")
