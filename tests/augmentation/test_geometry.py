"""Flips and shifts: each result is one of the few there are, all of them occur, and each image has its own draw."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.augmentation.geometry import flip_half, random_resized_crop, shift

PIXELS = 2
IMAGES = np.random.default_rng(0).integers(1, 256, (200, 6, 5, 3), np.uint8)  # no zeros, which are what moves in
shifted = jax.jit(partial(shift, pixels=PIXELS))
flipped = jax.jit(flip_half)


def places(images):
    """Which of the 25 crops of the zero-padded images each result is, as numbers; a failure if it is none."""
    padded = np.pad(IMAGES, ((0, 0), (PIXELS, PIXELS), (PIXELS, PIXELS), (0, 0)))
    crops = [padded[:, y : y + 6, x : x + 5] for y in range(2 * PIXELS + 1) for x in range(2 * PIXELS + 1)]
    equal = np.stack([(np.asarray(images) == crop).all((1, 2, 3)) for crop in crops])
    np.testing.assert_array_equal(equal.sum(0), 1)
    return equal.argmax(0)


def test_a_shift_is_one_of_the_crops_each_as_likely():
    drawn = np.concatenate([places(shifted(jax.random.key(seed), IMAGES)) for seed in range(20)])
    counts = np.bincount(drawn, minlength=25)
    assert counts.sum() == 4000
    assert ((counts > 110) & (counts < 210)).all(), counts  # 160 +- 12.4: four standard deviations


def test_a_shift_draws_from_its_key_alone():
    first, again, other = (places(shifted(jax.random.key(seed), IMAGES)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert 0.8 < (first != other).mean() < 1


def test_shifts_keep_dtypes_and_shapes():
    key = jax.random.key(0)
    as_bytes = shifted(key, IMAGES)
    as_floats = shifted(key, IMAGES.astype(jnp.bfloat16))
    assert (as_bytes.dtype, as_floats.dtype) == (jnp.uint8, jnp.bfloat16)
    assert as_bytes.shape == as_floats.shape == IMAGES.shape
    np.testing.assert_array_equal(np.asarray(as_bytes), np.asarray(as_floats).astype(np.uint8))


def test_no_pixels_are_no_shift():
    assert shift(jax.random.key(0), IMAGES, 0) is IMAGES
    with pytest.raises(ValueError, match="-1 pixels"):
        shift(jax.random.key(0), IMAGES, -1)


def test_half_of_the_images_are_mirrored():
    images = np.asarray(flipped(jax.random.key(0), IMAGES))
    mirrored = (images == IMAGES[:, :, ::-1]).all((1, 2, 3))
    np.testing.assert_array_equal(images[~mirrored], IMAGES[~mirrored])
    assert images.dtype == np.uint8
    assert 70 < mirrored.sum() < 130  # 100 +- 7
    # The draw is that of a Bernoulli of the key itself, so that runs from before this module continue with it.
    np.testing.assert_array_equal(mirrored, jax.random.bernoulli(jax.random.key(0), shape=(200,)))
    assert (np.asarray(flipped(jax.random.key(1), IMAGES)) != images).any()


def test_a_resized_crop_of_ramps_is_a_ramp_that_tells_its_rectangle():
    """Channels rise along y and x, so that slopes are the crop's sides and corners where it lies."""
    height, width, min_area = 24, 32, 0.25
    y, x = (np.arange(n, dtype=np.float32) + 0.5 for n in (height, width))
    ramps = np.stack(np.broadcast_arrays(y[:, None] / height, x[None] / width), -1).astype(np.float32)
    images = np.broadcast_to(ramps, (300, height, width, 2))
    crops = np.asarray(jax.jit(partial(random_resized_crop, min_area=min_area))(jax.random.key(0), images))
    inner = crops[:, 4:-4, 4:-4]  # at the image's own edge there is nothing to interpolate with
    down, along = inner[:, -1, 0, 0] - inner[:, 0, 0, 0], inner[:, 0, -1, 1] - inner[:, 0, 0, 1]
    sides = np.stack([down * height / (height - 9), along * width / (width - 9)])
    area, ratio = sides[0] * sides[1], sides[1] / sides[0]
    assert (sides < 1 + 1e-4).all()
    assert ((ratio > 0.75 - 1e-3) & (ratio < 4 / 3 + 1e-3)).all()
    whole = (sides < 0.999).all(0)  # not cut off
    assert (area[whole] > min_area - 1e-3).all()
    assert 0.5 < area[whole].mean() < 0.65  # uniform in [0.25, 1], less those that were cut off
    middle = inner.mean((1, 2))
    assert (middle > sides.T / 2 - 1e-3).all(), "a crop begins before its image"
    assert (middle < 1 - sides.T / 2 + 1e-3).all(), "a crop ends behind its image"
    assert middle.std() > 0.05


def test_a_resized_crop_keeps_shape_and_type_and_a_constant():
    images = jnp.full((3, 8, 6, 1), 77, jnp.uint8)
    crops = jax.jit(partial(random_resized_crop, min_area=0.1))(jax.random.key(1), images)
    assert crops.dtype == jnp.uint8
    np.testing.assert_array_equal(crops, images)
