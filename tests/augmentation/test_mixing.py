"""Mixing: convex combinations for mixup, counted pixels for cutmix, the distribution of lambda, the coin."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.augmentation.mixing import cutmix, mix, mixup, smoothed_targets

B, H, W, Y = 4, 8, 6, 5
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (B, H, W, 3)).astype(np.float32)
TARGETS = np.eye(Y, dtype=np.float32)[[0, 1, 2, 3]]  # so that an image's weight can be read at its own label
KEYS = jax.random.split(jax.random.key(0), 2000)
KEYS = KEYS.at[-1].set(KEYS[0])


@pytest.fixture(scope="module")
def drawn():
    """(images, targets) of many keys, for each way of mixing."""
    ways = {
        "mixup": partial(mixup, alpha=0.3),
        "cutmix": partial(cutmix, alpha=1.0),
        "mix": partial(mix, mixup_alpha=0.3, cutmix_alpha=1.0),
    }
    many = {name: jax.jit(jax.vmap(way, in_axes=(0, None, None))) for name, way in ways.items()}
    return {name: tuple(map(np.asarray, way(KEYS, IMAGES, TARGETS))) for name, way in many.items()}


def weights(targets):
    """[N]: how much each image counts for itself, which is the same for all of a batch."""
    own = targets[:, range(B), range(B)]
    np.testing.assert_array_equal(own, np.broadcast_to(own[:, :1], own.shape))
    return own[:, 0]


def swapped(images):
    """[N, H, W]: which pixels are the partner's, the same for all of a batch; a failure if one is neither's."""
    own, partners = (images == IMAGES).all(-1), (images == IMAGES[::-1]).all(-1)
    assert (own ^ partners).all()
    np.testing.assert_array_equal(partners, np.broadcast_to(partners[:, :1], partners.shape))
    return partners[:, 0]


@pytest.mark.parametrize("way", ["mixup", "cutmix", "mix"])
def test_targets_stay_distributions(drawn, way):
    images, targets = drawn[way]
    assert (images.dtype, targets.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    assert (targets >= 0).all()
    partner = targets[:, range(B), range(B)[::-1]]
    np.testing.assert_allclose(partner, 1 - targets[:, range(B), range(B)], atol=1e-7)


def test_mixup_weighs_images_as_it_weighs_targets(drawn):
    images, targets = drawn["mixup"]
    weight = weights(targets)[:, None, None, None, None]
    np.testing.assert_allclose(images, weight * IMAGES + (1 - weight) * IMAGES[::-1], atol=1e-6)


def test_lambda_is_of_the_beta_distribution(drawn):
    weight = weights(drawn["mixup"][1])
    variance = 1 / (4 * (2 * 0.3 + 1))
    assert abs(weight.mean() - 0.5) < 4 * np.sqrt(variance / len(weight))
    assert abs(weight.var() / variance - 1) < 0.1
    assert len(np.unique(weight)) > 1000


def test_cutmix_weight_is_the_area_left(drawn):
    images, targets = drawn["cutmix"]
    area = swapped(images).sum((1, 2))
    np.testing.assert_allclose(weights(targets) * (H * W), H * W - area, atol=1e-4)  # pixels
    assert area.min() == 0
    assert area.max() == 6 * 4  # a side is floor(sqrt(1 - lambda) * 8) < 8, made even; so of 6


def test_cutmix_swaps_one_box_anywhere(drawn):
    boxes = swapped(drawn["cutmix"][0])
    rows, columns = boxes.any(2), boxes.any(1)
    np.testing.assert_array_equal(boxes, rows[:, :, None] & columns[:, None, :])
    for sides in (rows, columns):  # an interval: at most one place where it begins
        assert (np.diff(np.pad(sides, ((0, 0), (1, 0))).astype(int), axis=1) == 1).sum(1).max() == 1
    whole = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
    assert (rows.sum(1)[whole] % 2 == 0).all()
    assert boxes.any(0).all()


def test_cutmix_area_before_clipping():
    # lambda is 1/2 for a large alpha: floor(sqrt(1/2) * 100) // 2 = 35 pixels each way, as timm's rand_bbox has it.
    images = np.zeros((2, 100, 100, 1), np.float32)
    images[1] = 1
    one = jax.jit(partial(cutmix, alpha=1e6))
    for seed in range(40):
        box = np.asarray(one(jax.random.key(seed), images, TARGETS[:2])[0])[0, :, :, 0]
        if not (box[0].any() or box[-1].any() or box[:, 0].any() or box[:, -1].any()):
            break
    assert box.sum() == 70 * 70


def test_mix_is_one_or_the_other_by_a_fair_coin(drawn):
    images, targets = drawn["mix"]
    cut = ((images == IMAGES) | (images == IMAGES[::-1])).all((1, 2, 3, 4))
    assert 900 < cut.sum() < 1120  # 1000 +- 22, and mixups with lambda that rounds to 0 or 1
    weight = weights(targets)[~cut][:, None, None, None, None]
    np.testing.assert_allclose(images[~cut], weight * IMAGES + (1 - weight) * IMAGES[::-1], atol=1e-6)


def test_an_alpha_of_zero_turns_one_off():
    def program(way, **alphas):
        return str(jax.make_jaxpr(partial(way, **alphas))(KEYS[0], IMAGES, TARGETS))

    assert program(mix, mixup_alpha=0.3, cutmix_alpha=0.0) == program(mixup, alpha=0.3)
    assert program(mix, mixup_alpha=0.0, cutmix_alpha=1.0) == program(cutmix, alpha=1.0)
    images, targets = mix(KEYS[0], IMAGES, TARGETS, mixup_alpha=0.0, cutmix_alpha=0.0)
    assert images is IMAGES
    assert targets is TARGETS


@pytest.mark.parametrize("way", ["mixup", "cutmix", "mix"])
def test_draws_are_of_the_key(drawn, way):
    images, targets = drawn[way]
    np.testing.assert_array_equal(images[-1], images[0])  # the last key is the first one again
    np.testing.assert_array_equal(targets[-1], targets[0])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) > 100


def test_narrow_images_keep_their_dtype():
    images, targets = mixup(KEYS[0], jnp.asarray(IMAGES, jnp.bfloat16), TARGETS, 1.0)
    assert (images.dtype, targets.dtype) == (jnp.bfloat16, jnp.float32)


def test_what_cannot_be_mixed_is_refused():
    key = KEYS[0]
    with pytest.raises(ValueError, match="uint8 images"):
        mixup(key, IMAGES.astype(np.uint8), TARGETS, 1.0)
    with pytest.raises(ValueError, match="int32 targets"):
        cutmix(key, IMAGES, TARGETS.astype(np.int32), 1.0)
    with pytest.raises(ValueError, match="not \\[B, H, W, C\\]"):
        cutmix(key, IMAGES, TARGETS[:2], 1.0)
    with pytest.raises(ValueError, match="not positive"):
        mixup(key, IMAGES, TARGETS, 0.0)
    with pytest.raises(ValueError, match="0 or positive"):
        mix(key, IMAGES, TARGETS, mixup_alpha=-1.0, cutmix_alpha=0.0)


def test_smoothed_targets():
    targets = smoothed_targets(jnp.array([2, 0]), 4, 0.1)
    assert targets.dtype == jnp.float32
    np.testing.assert_allclose(targets, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], rtol=1e-6)
    np.testing.assert_array_equal(smoothed_targets(jnp.array([2]), 4, 0.0), [[0, 0, 1, 0]])
    with pytest.raises(ValueError, match="smoothing"):
        smoothed_targets(jnp.array([2]), 4, 1.5)
