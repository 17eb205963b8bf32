"""Degradations against scipy and Pillow; composites and fills by hand."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from gormley_vision.augmentation.degradations import composite, gaussian_blur, jpeg, mean_fill, nearest_fill

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (2, 11, 14, 3)).astype(np.float32)
compressed = jax.jit(jpeg)


def picture(height, width):
    """Coarse and fine structure, uint8 [H, W, 3]."""
    noise = np.random.default_rng(0).normal(size=(2, height, width, 3))
    coarse, fine = 6 * gaussian_filter(noise[0], (3, 3, 0)), 0.4 * gaussian_filter(noise[1], (0.7, 0.7, 0))
    return np.clip(128 + 90 * (coarse + fine), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [0.5, 1.3, 3.5])
def test_blur_is_scipys(sigma):
    """The widest one reaches farther than the image, which is mirrored again."""
    wanted = gaussian_filter(IMAGES.astype(np.float64), sigma, axes=(1, 2))
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(IMAGES), sigma), wanted, atol=1e-5)


def test_blur_keeps_constants_and_is_refused_without_a_width():
    ones = jnp.full((1, 5, 6, 2), 0.7)
    np.testing.assert_allclose(gaussian_blur(ones, 2.0), ones, rtol=1e-6)
    with pytest.raises(ValueError, match="sigma 0"):
        gaussian_blur(ones, 0)


def by_pillow(pixels, quality):
    """Decoded pixels, and the tables of the file, [2, 8, 8]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    with Image.open(file) as image:
        tables = np.array([*image.quantization.values()]).reshape(-1, 8, 8)
        return np.asarray(image).astype(np.float64), tables


@pytest.mark.parametrize(("height", "width"), [(64, 64), (61, 45)])
def test_jpeg_is_nearly_pillows(height, width):
    """In levels of 255; what differs are coefficients about halfway between two steps, and roundings of pixels."""
    pixels = picture(height, width)
    images = jnp.asarray(pixels[None], jnp.float32) / 127.5 - 1
    for quality in (5, 30, 49, 50, 75, 95, 100):
        wanted, _ = by_pillow(pixels, quality)
        found = (np.asarray(compressed(images, quality))[0] + 1) * 127.5
        np.testing.assert_allclose(found, np.round(found), atol=1e-3)
        difference, loss = np.abs(found - wanted).mean(), np.abs(wanted - pixels).mean()
        assert difference < 0.4
        assert quality == 100 or difference < loss / 8
        wanted, _ = by_pillow(pixels[..., 1], quality)
        found = (np.asarray(compressed(images[..., 1:2], quality))[0, ..., 0] + 1) * 127.5
        assert np.abs(found - wanted).mean() < 0.25


def test_jpeg_quantises_each_frequency_in_pillows_steps():
    """64 blocks, each one wave: what comes back is that wave, in whole steps of the file's table."""
    number = np.arange(8)
    waves = np.cos((2 * number[None, :] + 1) * number[:, None] * np.pi / 16)
    waves = np.einsum("ui,vj->uivj", waves, waves).reshape(1, 64, 64, 1)
    luma = np.array([0.299, 0.587, 0.114])
    blue = np.array([-0.168736, -0.331264, 0.5])  # Cb, of which the colour below is 1 and its luma 0
    colours = ((0, 90 * np.ones(3), luma, 0.51), (1, 40 * np.array([0, -0.344136, 1.772]), blue, 1.2))
    for table, colour, plane, rounding in colours:
        pixels = np.round(128 + waves * colour)
        for quality in (30, 60):
            steps = by_pillow(picture(16, 16), quality)[1][table]
            found = (np.asarray(compressed(jnp.asarray(pixels / 127.5 - 1, jnp.float32), quality)) + 1) * 127.5
            for frequency in np.ndindex(8, 8):
                rows, columns = (slice(8 * place, 8 * place + 8) for place in frequency)
                before, after = ((x[0, rows, columns] - 128) @ plane for x in (pixels, found))
                wanted = np.zeros((8, 8))
                wanted[frequency] = np.round(dctn(before, norm="ortho")[frequency] / steps[frequency])
                np.testing.assert_allclose(after, idctn(wanted * steps, norm="ortho"), atol=rounding)


def test_a_composite_is_the_known_image_to_the_bit():
    predicted = jnp.asarray(RNG.normal(size=IMAGES.shape), jnp.bfloat16)
    mask = RNG.random((2, 11, 14, 1)) < 0.5
    found = composite(jnp.asarray(IMAGES), predicted, mask)
    assert found.dtype == jnp.float32
    full = np.broadcast_to(mask, IMAGES.shape)
    np.testing.assert_array_equal(np.asarray(found)[full], IMAGES[full])
    np.testing.assert_array_equal(np.asarray(found)[~full], np.asarray(predicted, np.float32)[~full])


def test_fills_by_hand():
    """A row of known and unknown pixels; of the second image nothing is known."""
    images = np.array([[[1, 9, 9, 4, 9]], [[9, 9, 9, 9, 9]]], np.float32)[..., None]
    mask = np.array([[[1, 0, 0, 1, 0]], [[0, 0, 0, 0, 0]]], bool)[..., None]
    np.testing.assert_array_equal(mean_fill(images, mask)[..., 0], [[[1, 2.5, 2.5, 4, 2.5]], [[0, 0, 0, 0, 0]]])
    np.testing.assert_array_equal(nearest_fill(images[:1], mask[:1])[..., 0], [[[1, 1, 4, 4, 4]]])
    with pytest.raises(ValueError, match="nothing is known"):
        nearest_fill(images, mask)


def test_nearest_fill_by_all_distances():
    mask = RNG.random((2, 11, 14, 1)) < 0.15
    found = nearest_fill(IMAGES, mask)
    for image, known, filled in zip(IMAGES, mask[..., 0], found, strict=True):
        places = np.argwhere(known)
        for pixel in np.ndindex(known.shape):
            distances = np.linalg.norm(places - pixel, axis=1)
            nearest = places[distances <= distances.min() + 1e-9]
            assert any((filled[pixel] == image[tuple(place)]).all() for place in nearest)
