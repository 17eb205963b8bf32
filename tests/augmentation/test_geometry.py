"""Flips and shifts: each result is one of the few there are, all of them occur, and each image has its own draw."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.augmentation.geometry import flip_half, shift

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
