"""Each operation against Pillow's; then what a batch draws."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from gormley_vision.augmentation.randaugment import OPERATIONS, apply_operation, randaugment

H, W = 28, 24
STRENGTHS = (-0.9, -0.43, 0.0, 0.53, 0.9)
# Smooth, of unequal channels that do not fill the range, with noise.
LINES = np.arange(H)[:, None, None] * np.array([2.0, 1, 3]) + np.arange(W)[None, :, None] * np.array([3.0, 4, 1]) + 20
COLOURED = np.clip(LINES + np.random.default_rng(0).normal(0, 12, (H, W, 3)), 5, 240).astype(np.uint8)
IMAGES = {1: COLOURED[:, :, :1], 3: COLOURED}
all_operations = jax.jit(jax.vmap(jax.vmap(apply_operation, (None, None, 0)), (None, 0, None)))
both_augment = jax.jit(partial(randaugment, operations=2, magnitude=9.0))


def affine(image, *matrix):
    fill = (128,) * len(image.getbands())
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill if len(fill) > 1 else 128
    )


def rotated(image, s):
    fill = (128,) * len(image.getbands())
    return image.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=fill if len(fill) > 1 else 128)


PILLOW = {
    "identity": lambda image, s: image,
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "solarize": lambda image, s: ImageOps.solarize(image, math.ceil(256 * (1 - abs(s)))),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "rotate": rotated,
    "shear_x": lambda image, s: affine(image, 1, 0.3 * s, 0, 0, 1, 0),
    "shear_y": lambda image, s: affine(image, 1, 0, 0, 0.3 * s, 1, 0),
    "translate_x": lambda image, s: affine(image, 1, 0, 0.45 * s * W, 0, 1, 0),
    "translate_y": lambda image, s: affine(image, 1, 0, 0, 0, 1, 0.45 * s * H),
}
EXACT = {"identity", "equalize", "solarize", "posterize"}


@pytest.fixture(scope="module")
def results():
    """For 1 and 3 channels, every operation at every strength: uint8 [14, 5, H, W, C]."""
    indices, strengths = jnp.arange(len(OPERATIONS)), jnp.array(STRENGTHS)
    return {channels: np.asarray(all_operations(image, indices, strengths)) for channels, image in IMAGES.items()}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_pillows(results, name, channels):
    image = Image.fromarray(IMAGES[channels].squeeze())
    for result, strength in zip(results[channels][OPERATIONS.index(name)], STRENGTHS, strict=True):
        expected = np.asarray(PILLOW[name](image, strength)).reshape(H, W, channels)
        worst = np.abs(result.astype(int) - expected.astype(int)).max()
        assert worst <= (0 if name in EXACT else 1), (name, strength, worst)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_strength_does(results, channels):
    original, result = IMAGES[channels], dict(zip(OPERATIONS, results[channels], strict=True))
    assert result["identity"].dtype == np.uint8
    still = {"identity", "color"} if channels == 1 else {"identity"}
    for name, at in result.items():
        changed = [(one != original).any() for one in at]
        if name in still:
            assert not any(changed), name
        elif name in {"autocontrast", "equalize"}:
            assert all(changed), name
        else:  # a strength of 0 is none at all
            assert changed == [True, True, False, True, True], name
    assert (result["translate_x"][0][:, 0] == 128).all()
    assert (result["translate_y"][-1][-1] == 128).all()


def test_images_of_one_value_stay():
    flat = np.full((H, W, 1), 77, np.uint8)
    at = dict(zip(OPERATIONS, np.asarray(all_operations(flat, jnp.arange(14), jnp.array(STRENGTHS))), strict=True))
    for name in ("autocontrast", "equalize", "contrast", "sharpness"):
        assert (at[name] == 77).all(), name


def test_each_operation_and_sign_is_as_likely(results):
    augment = jax.jit(partial(randaugment, operations=1, magnitude=9.0))
    batch = np.asarray(augment(jax.random.key(0), np.broadcast_to(COLOURED, (280, H, W, 3)))).astype(np.int16)
    options = results[3][:, [0, -1]].reshape(28, H, W, 3)
    distances = np.stack([np.abs(batch - option).max((1, 2, 3)) for option in options])
    assert (distances.min(0) <= 1).all()
    counts = np.bincount(distances.argmin(0), minlength=28).reshape(14, 2)
    assert ((counts.sum(1) > 5) & (counts.sum(1) < 38)).all(), counts  # 20 +- 4.3
    signed = (options.reshape(14, 2, -1)[:, 0] != options.reshape(14, 2, -1)[:, 1]).any(1)
    assert signed.sum() == 9
    positive = counts[signed, 1].sum() / counts[signed].sum()
    assert abs(positive - 0.5) < 0.15, counts  # +- 0.037


def test_a_batch_is_what_its_draws_say():
    """Each of 64 copies of an image is one of the 28 * 28 chains of two operations and signs, drawn independently."""
    batch = np.asarray(both_augment(jax.random.key(0), np.broadcast_to(COLOURED, (64, H, W, 3))))
    assert (batch.dtype, batch.shape) == (np.uint8, (64, H, W, 3))
    both_signs = jnp.array([-0.9, 0.9])
    chains = jax.jit(lambda image: all_operations(image, jnp.arange(14), both_signs).reshape(28, H, W, 3))
    found = np.zeros((64, 28, 28), bool)
    for first, image in enumerate(np.asarray(chains(COLOURED))):
        second = np.asarray(chains(image)).astype(np.int16)
        found[:, first] = (np.abs(batch[:, None] - second[None]) <= 1).mean((2, 3, 4)) > 0.99
    assert found.any((1, 2)).all()
    chain = np.argwhere(found & (found.sum((1, 2), keepdims=True) == 1))[:, 1:]  # [N, 2] of those that only one makes
    operation, sign = chain // 2, chain % 2
    assert len(chain) > 15
    assert (operation[:, 0] == operation[:, 1]).mean() < 0.5
    assert (np.abs(sign.mean(0) - 0.5) < 0.3).all()
    assert 0.2 < (sign[:, 0] == sign[:, 1]).mean() < 0.8


def test_draws_are_of_the_key():
    batch = np.broadcast_to(COLOURED, (64, H, W, 3))
    first, again, other = (np.asarray(both_augment(jax.random.key(seed), batch)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any((1, 2, 3)).mean() > 0.8


def test_no_operations_change_nothing_and_what_cannot_be_is_refused():
    batch, key = COLOURED[None], jax.random.key(0)
    np.testing.assert_array_equal(randaugment(key, batch, operations=0, magnitude=9.0), batch)
    with pytest.raises(ValueError, match="float32 images"):
        randaugment(key, batch.astype(np.float32), operations=1, magnitude=9.0)
    with pytest.raises(ValueError, match="1 or 3"):
        randaugment(key, batch[..., :2], operations=1, magnitude=9.0)
    for operations, magnitude in ((-1, 9.0), (1, 11.0), (1, -1.0)):
        with pytest.raises(ValueError, match="at magnitude"):
            randaugment(key, batch, operations=operations, magnitude=magnitude)
