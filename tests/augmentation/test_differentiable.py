"""Differentiable augmentation against numpy, scipy, the laws of its draws, and the matrix that it is."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

from gormley_vision.augmentation import warps
from gormley_vision.augmentation.differentiable import TRANSFORMS, augment
from gormley_vision.augmentation.policies import GROUPS, NAMES, parsed

KEY = jax.random.key(0)
COUNT = 1000
ALL = tuple((name, 1.0) for name in NAMES)
ALIKE = np.random.default_rng(0).uniform(0.1, 1, (8, 8, 3)).astype(np.float32)  # no pixel is 0
LUMA = np.outer([1, 1, 1], [1, 1, 1]) / 3  # v v^T
apply = jax.jit(augment, static_argnums=2)


def many(image, transforms, count=COUNT):
    """`count` images alike, augmented with probability 1."""
    return np.asarray(apply(KEY, jnp.asarray(np.tile(image, (count, 1, 1, 1))), transforms, 1.0))


@functools.cache
def _program():
    """Each transform alone, and two groups: one program for many tests, since compiling is what takes time."""
    policies = {name: ((name, 1.0),) for name in NAMES} | {name: parsed(name) for name in ("blit", "ada_color")}
    return jax.jit(lambda images, p: {name: augment(KEY, images, policies[name], p) for name in policies})


@functools.cache
def alone(probability=1.0):
    """By name, `COUNT` times `ALIKE` augmented."""
    found = _program()(jnp.asarray(np.tile(ALIKE, (COUNT, 1, 1, 1))), probability)
    return {name: np.asarray(images) for name, images in found.items()}


def inverses(name, shape, probability=1.0):
    """Matrices of a warp, by the numbers that `augment` draws for it."""
    numbers = jax.random.uniform(jax.random.fold_in(KEY, NAMES.index(name)), (4, shape[0]))
    return [np.asarray(matrix) for matrix in TRANSFORMS[name].function(numbers, probability, shape)]


def follows(draws, law):
    assert stats.kstest(draws, law.cdf).pvalue > 1e-3


def equally_often(indices, count, odds=None):
    seen = np.bincount(indices, minlength=count)
    assert stats.chisquare(seen, None if odds is None else np.array(odds) * len(indices)).pvalue > 1e-3


def index_of_equal(results, candidates):
    """For each result the one candidate that it equals to the bit."""
    equal = np.stack([(results == candidate).all((1, 2, 3)) for candidate in candidates])
    assert (equal.sum(0) == 1).all()
    return equal.argmax(0)


def test_policies_name_the_transforms_there_are():
    assert tuple(TRANSFORMS) == NAMES
    for group in GROUPS:
        assert {name for name, _ in parsed(group)} <= TRANSFORMS.keys()


def test_a_policy_is_parsed_by_hand():
    color = tuple((name, 1.0) for name in ("brightness_shift", "saturation_scale", "contrast_scale"))
    assert parsed("") == ()
    assert parsed(" cutout , color,cutout") == (*color, ("cutout", 1.0))
    assert parsed("diffaugment") == (*color, ("translation", 1.0), ("cutout", 1.0))
    assert parsed("hue * 0.25,flip") == (("flip", 1.0), ("hue", 0.25))
    warped = ("flip", "rotate90", "integer_translation")
    warped += ("scale", "rotation", "anisotropic_scale", "fractional_translation")
    colors = ("brightness", "contrast", "luma_flip", "hue", "saturation")
    assert parsed("bgc") == tuple((name, 1.0) for name in warped + colors)
    halved = (*((name, 1.0) for name in warped), *((name, 0.5) for name in colors), ("cutout", 1.0))
    assert parsed("r3gan") == parsed("blit,geometry,ada_color*0.5,cutout") == halved
    assert parsed("r3gan*0.5") == tuple((name, factor / 2) for name, factor in halved)


def test_what_is_no_policy_is_refused():
    for policy, message in (
        ("colour,cutout", "'colour' in the policy 'colour,cutout' .*did you mean 'color'"),
        ("cutout,xyzzy", "'xyzzy' .*choose among color, .*cutout"),
        ("color,,cutout", "'' in the policy"),
        *((f"hue*{factor}", rf"'hue\*{factor}' .*above 0 and at most 1") for factor in ("2", "0", "", "half", "nan")),
        ("bgc,hue*0.5", "'hue' has two factors in 'bgc,hue.0.5', 1 and 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            parsed(policy)


def test_a_policy_is_parsed_without_jax():
    code = "import sys, gormley_vision.augmentation.policies as p; p.parsed('r3gan'); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_colors_shift_or_scale_about_a_mean():
    for name, center, low, high in (("saturation_scale", (2,), 0, 2), ("contrast_scale", (0, 1, 2), 0.5, 1.5)):
        mean = ALIKE.mean(center, keepdims=True)
        found = alone()[name]
        factors = np.median(((found - mean) / (ALIKE - mean)).reshape(COUNT, -1), axis=1)
        np.testing.assert_allclose(found, mean + factors[:, None, None, None] * (ALIKE - mean), atol=1e-6)
        follows(factors, stats.uniform(low, high - low))
    shifts = alone()["brightness_shift"] - ALIKE
    assert np.ptp(shifts.reshape(COUNT, -1), axis=1).max() < 1e-6
    follows(shifts[:, 0, 0, 0], stats.uniform(-0.5, 1))


def test_a_translation_brings_zeros():
    """At most two of sixteen rows and one of eight columns."""
    image = np.random.default_rng(1).uniform(0.1, 1, (16, 8, 1)).astype(np.float32)
    padded = np.pad(image, ((2, 2), (1, 1), (0, 0)))
    candidates = [padded[row : row + 16, column : column + 8] for row in range(5) for column in range(3)]
    equally_often(index_of_equal(many(image, (("translation", 1.0),)), candidates), 15)


def test_a_cutout_is_the_official_one():
    """Rows and columns of DiffAugment_pytorch.py, an even square and an odd one."""

    def rows(side):
        size = int(side * 0.5 + 0.5)
        return [{*np.clip(np.arange(size) + o - size // 2, 0, side - 1)} for o in range(side + 1 - size % 2)]

    image = ALIKE[:, :6]
    candidates = []
    for down in rows(8):
        for right in rows(6):
            candidates.append(image.copy())
            candidates[-1][np.ix_([*down], [*right])] = 0
    assert len(candidates) == 9 * 6
    equally_often(index_of_equal(many(image, (("cutout", 1.0),)), candidates), len(candidates))


def shifted(image, down, right):
    height, width, _ = image.shape
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    return padded[2 - down : 2 - down + height, 2 - right : 2 - right + width]


def test_blits_are_exact_and_in_order():
    """Mirrored, then turned, then shifted. What each does alone is what they do together, all by numpy, to the bit."""
    found = alone()
    flips = index_of_equal(found["flip"], [ALIKE, ALIKE[:, ::-1]])
    turns = index_of_equal(found["rotate90"], [np.rot90(ALIKE, k) for k in range(4)])
    places = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    shifts = index_of_equal(found["integer_translation"], [shifted(ALIKE, *place) for place in places])
    equally_often(flips, 2)
    equally_often(turns, 4)
    odds = np.array([1, 2, 1]) / 4  # U(-1, 1), rounded
    equally_often(shifts, 9, np.outer(odds, odds).reshape(-1))
    for result, flip, turn, shift in zip(found["blit"], flips, turns, shifts, strict=True):
        expected = shifted(np.rot90(ALIKE[:, ::-1] if flip else ALIKE, turn), *places[shift])
        np.testing.assert_array_equal(result, expected)


def test_what_is_drawn_of_geometry():
    """Matrices map the result's pixels to their sources: twice as large means half of the distance."""
    shape = (COUNT, 16, 8, 3)
    (scales,) = inverses("scale", shape)
    follows(-np.log2(scales[:, 0, 0]), stats.norm(0, 0.2))
    np.testing.assert_array_equal(scales, scales[:, :1, :1] * np.diag([1, 1, 0]) + np.diag([0, 0, 1]))
    (stretches,) = inverses("anisotropic_scale", shape)
    follows(-np.log2(stretches[:, 0, 0]), stats.norm(0, 0.2))
    np.testing.assert_allclose(stretches[:, 0, 0] * stretches[:, 1, 1], 1, rtol=1e-6)
    assert not stretches[:, [0, 0, 1, 1], [1, 2, 0, 2]].any()
    (shifts,) = inverses("fractional_translation", shape)
    follows(shifts[:, 0, 2] / 8, stats.norm(0, 0.125))
    follows(shifts[:, 1, 2] / 16, stats.norm(0, 0.125))
    np.testing.assert_array_equal(shifts[:, :2, :2], np.tile(np.eye(2), (COUNT, 1, 1)))
    before, after = (Rotation.from_matrix(rotations).as_rotvec() for rotations in inverses("rotation", shape))
    for vectors in (before, after):
        np.testing.assert_allclose(vectors[:, :2], 0, atol=1e-6)
        follows(vectors[:, 2], stats.uniform(-np.pi, 2 * np.pi))
    assert abs(np.corrcoef(before[:, 2], after[:, 2])[0, 1]) < 4 / np.sqrt(COUNT)
    # One of two at least is there as often as asked for: 1 - 0.8^2.
    before, after = ((m != np.eye(3)).any((1, 2)) for m in inverses("rotation", (COUNT, 8, 8, 1), 0.36))
    for applied, share in ((before, 0.2), (after, 0.2), (before | after, 0.36)):
        assert stats.binomtest(int(applied.sum()), COUNT, share).pvalue > 1e-3


def by_scipy(image, inverse):
    """Interpolate about the centre; `inverse` takes (x, y, 1), scipy (row, column)."""
    center = (np.array(image.shape[:2]) - 1) / 2
    linear, offset = inverse[1::-1, 1::-1], inverse[1::-1, 2]
    moved = [
        ndimage.affine_transform(channel, linear, center + offset - linear @ center, order=1, mode="mirror")
        for channel in np.moveaxis(image, 2, 0).astype(np.float64)
    ]
    return np.stack(moved, axis=-1)


def test_all_warps_are_one_interpolation():
    """Of the product of the matrices that each transform draws alone."""
    images = np.random.default_rng(3).normal(size=(20, 9, 8, 2)).astype(np.float32)
    alone = {name: inverses(name, images.shape) for name, _ in parsed("blit,geometry")}
    inverse = np.eye(3)
    for name, part in (
        *(("flip", 0), ("rotate90", 0), ("integer_translation", 0), ("scale", 0), ("rotation", 0)),
        *(("anisotropic_scale", 0), ("rotation", 1), ("fractional_translation", 0)),
    ):
        inverse = inverse @ alone[name][part].astype(np.float64)
    found = apply(KEY, jnp.asarray(images), parsed("geometry,blit"), 1.0)
    expected = np.stack([by_scipy(image, matrix) for image, matrix in zip(images, inverse, strict=True)])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(expected - images).max((1, 2, 3)).min() > 0.1


def test_a_warp_from_far_outside_is_mirrored_again_and_again():
    images = np.random.default_rng(4).normal(size=(4, 5, 4, 1)).astype(np.float32)
    far = [[[5, 1, 3], [-2, 6, 1], [0, 0, 1]], [[1, 0, 30.25], [0, 1, -50.5], [0, 0, 1]]]
    matrices = np.array([*far, np.eye(3), np.diag([-1, 1, 1])], np.float32)
    warp = jax.jit(warps.warp)
    found = np.asarray(warp(jnp.asarray(images), jnp.asarray(matrices)))
    for image, matrix, result in zip(images, matrices, found, strict=True):
        np.testing.assert_allclose(result, by_scipy(image, matrix), atol=1e-4)
    np.testing.assert_array_equal(found[2], images[2])
    np.testing.assert_array_equal(found[3], images[3, :, ::-1])
    column = images[:, :, :1]  # whose mirror image to the left and right is itself
    aside = np.array([[[1, 0, 7.25], [0, 1, 0], [0, 0, 1]]] * 4, np.float32)
    np.testing.assert_array_equal(warp(jnp.asarray(column), jnp.asarray(aside)), column)


@functools.cache
def color_maps(name):
    """Read the maps [COUNT, 3, 4] off the colours of `ALIKE` before and after."""
    before = np.concatenate([ALIKE.reshape(64, 3), np.ones((64, 1))], axis=1)
    after = alone()[name].astype(np.float64).reshape(COUNT, 64, 3)
    return np.swapaxes(np.linalg.pinv(before) @ after, 1, 2)


def test_colors_are_maps_drawn_by_their_laws_and_multiplied_in_order():
    maps = {name: color_maps(name) for name in ("brightness", "contrast", "luma_flip", "hue", "saturation")}
    for name in ("contrast", "luma_flip", "hue", "saturation"):
        np.testing.assert_allclose(maps[name][:, :, 3], 0, atol=1e-5)
    linear = {name: found[:, :, :3] for name, found in maps.items()}
    offsets = maps["brightness"][:, :, 3]
    np.testing.assert_allclose(linear["brightness"], np.tile(np.eye(3), (COUNT, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(offsets, offsets[:, :1] * np.ones(3), atol=1e-5)
    follows(offsets[:, 0], stats.norm(0, 0.2))
    factors = linear["contrast"][:, 0, 0]
    np.testing.assert_allclose(linear["contrast"], factors[:, None, None] * np.eye(3), atol=1e-5)
    follows(np.log2(factors), stats.norm(0, 0.5))
    flipped = linear["luma_flip"][:, 0, 1] < -0.5
    assert stats.binomtest(int(flipped.sum()), COUNT, 0.5).pvalue > 1e-3
    np.testing.assert_allclose(linear["luma_flip"], np.eye(3) - 2 * LUMA * flipped[:, None, None], atol=1e-6)
    turns = Rotation.from_matrix(linear["hue"])
    np.testing.assert_allclose(turns.as_matrix(), linear["hue"], atol=1e-6)
    angles = turns.as_rotvec() @ np.ones(3) / np.sqrt(3)
    np.testing.assert_allclose(turns.as_rotvec(), angles[:, None] * np.ones(3) / np.sqrt(3), atol=1e-5)
    follows(angles, stats.uniform(-np.pi, 2 * np.pi))
    strengths = np.trace(linear["saturation"] - LUMA, axis1=1, axis2=2) / 2
    expected = LUMA + strengths[:, None, None] * (np.eye(3) - LUMA)
    np.testing.assert_allclose(linear["saturation"], expected, rtol=1e-5, atol=1e-6)
    follows(np.log2(strengths), stats.norm(0, 1))
    together = linear["saturation"] @ linear["hue"] @ linear["luma_flip"] @ linear["contrast"]
    expected = np.concatenate([together, together @ offsets[:, :, None]], axis=2)
    np.testing.assert_allclose(color_maps("ada_color"), expected, rtol=1e-4, atol=1e-5)


def test_grey_takes_the_mean_of_a_matrix_over_its_rows():
    image = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4, 1)
    found = many(image, parsed("ada_color"))
    rows = color_maps("ada_color").mean(1)
    expected = rows[:, :3].sum(1)[:, None, None, None] * image + rows[:, 3][:, None, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert {*np.sign(found[:, 3, 3, 0] - found[:, 0, 0, 0])} == {-1, 1}  # a luma flip negates
    for name in ("hue", "saturation"):
        np.testing.assert_array_equal(many(image, ((name, 1.0),), 9), np.tile(image, (9, 1, 1, 1)))


def test_each_transform_applies_to_its_own_share():
    """How likely a drawn transform is to change an image of 8x8 is known; the transforms' choices do not correlate."""
    visible = {"flip": 1 / 2, "luma_flip": 1 / 2, "rotate90": 3 / 4, "integer_translation": 3 / 4, "translation": 8 / 9}
    changed = {name: (alone(0.3)[name] != ALIKE).any((1, 2, 3)) for name in NAMES}
    for name, images in changed.items():
        share = 0.3 * visible.get(name, 1)
        assert stats.binomtest(int(images.sum()), COUNT, share).pvalue > 1e-3, name
    correlations = np.corrcoef(np.stack([*changed.values()]))[np.triu_indices(len(NAMES), 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(COUNT)


def test_a_factor_is_of_the_probability():
    images = jnp.asarray(np.tile(ALIKE, (COUNT, 1, 1, 1)))
    halved = np.asarray(apply(KEY, images, (("cutout", 0.5),), 0.6))
    np.testing.assert_array_equal(halved, alone(0.3)["cutout"])


def random_images(dtype, shape=(16, 8, 8, 3)):
    return jnp.asarray(np.random.default_rng(5).uniform(-1, 1, shape), dtype)


def with_adjoint(images, cotangent, probability):
    result, adjoint = jax.vjp(lambda images: augment(KEY, images, ALL, probability), images)
    return result, adjoint(cotangent)[0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_probability_0_is_the_identity_to_the_bit_and_so_is_its_gradient(dtype):
    given = random_images(dtype).at[0, 0, 0, 0].set(-0.0), random_images(dtype)[::-1]
    program = jax.jit(with_adjoint)
    for expected, found, other in zip(given, program(*given, 0.0), program(*given, 1.0), strict=True):
        assert found.dtype == dtype
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
        assert (other != expected).any()


def test_gradients_of_both_orders_are_those_of_a_matrix():
    """An augmentation is f(x) = J x + b; J is found by augmenting unit images, not by differentiation.

    Of the critic D = w.f + |f|^2 / 2 the gradient in x is J^T (w + f). Half of its squared norm, which is R1, has the
    gradients J^T J J^T (w + f) in x and J J^T (w + f) in w.
    """
    with jax.enable_x64(True):
        shape = (2, 4, 5, 3)
        images = random_images(jnp.float64, shape)
        weights = np.random.default_rng(6).normal(size=images.size)
        function = lambda images: augment(KEY, images, ALL, 1.0)  # noqa: E731

        def critic(images, weights):
            augmented = function(images).ravel()
            return jnp.sum(weights * augmented) + jnp.sum(jnp.square(augmented)) / 2

        def r1(images, weights):
            gradient = jax.grad(critic)(images, weights)
            return jnp.sum(jnp.square(gradient)) / 2, gradient

        points = np.concatenate([np.zeros((1, images.size)), images.reshape(1, -1), np.eye(images.size)])
        batches = jnp.asarray(points.reshape(-1, *shape))
        zero, result, *columns = np.asarray(jax.jit(jax.vmap(function))(batches)).reshape(points.shape)
        (second, of_weights), first = jax.jit(jax.grad(r1, (0, 1), has_aux=True))(images, jnp.asarray(weights))
    jacobian = np.stack(columns, axis=1) - zero[:, None]
    np.testing.assert_allclose(jacobian @ np.ravel(images) + zero, result, atol=1e-6)  # the matrices are float32
    assert np.linalg.norm(jacobian - np.eye(images.size)) > 1
    gradient = jacobian.T @ (weights + result)
    np.testing.assert_allclose(np.ravel(first), gradient, atol=1e-5)
    np.testing.assert_allclose(np.ravel(second), jacobian.T @ jacobian @ gradient, atol=1e-5)
    np.testing.assert_allclose(of_weights, jacobian @ gradient, atol=1e-5)


def test_every_dtype_has_the_same_draws():
    images = random_images(jnp.bfloat16)
    single = apply(KEY, images.astype(jnp.float32), ALL, 0.7)
    half = apply(KEY, images, ALL, 0.7)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), single, rtol=2**-8, atol=1e-5)
    with jax.enable_x64(True):
        double = apply(KEY, images.astype(jnp.float64), ALL, 0.7)
        assert double.dtype == jnp.float64
        np.testing.assert_allclose(double, single, atol=1e-5)


def test_images_do_not_mix():
    images = random_images(jnp.float32)
    found, spoilt = (apply(KEY, x, ALL, 0.7) for x in (images, images.at[0].set(jnp.nan)))
    np.testing.assert_array_equal(found[1:], spoilt[1:])
    assert np.isnan(spoilt[0]).any()


def test_a_batch_split_over_devices_needs_no_word_between_them():
    images = random_images(jnp.float32)
    split = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    program = jax.jit(with_adjoint, in_shardings=(split, split, None), out_shardings=split)
    program = program.lower(images, images, 0.7).compile()
    text = program.as_text()
    assert "num_partitions=8" in text
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
    found, _ = program(*[jax.device_put(images, split)] * 2, 0.7)
    np.testing.assert_allclose(found, apply(KEY, images, ALL, 0.7), atol=1e-5)


def test_jit_changes_nothing_and_neither_does_the_order_of_names():
    images = random_images(jnp.float32)
    some = parsed("scale,brightness_shift")
    np.testing.assert_allclose(augment(KEY, images, some[::-1], 0.7), apply(KEY, images, some, 0.7), atol=1e-5)


def test_what_cannot_be_augmented_is_refused():
    images = random_images(jnp.float32, (2, 4, 4, 2))
    for arguments, message in (
        ((images, (("zoom", 1.0),), 0.5), "no transforms are zoom: there are brightness_shift, .*cutout"),
        ((images, (("cutout", 1.0), ("cutout", 0.5)), 0.5), "twice"),
        ((images, (("flip", 1.0), ("hue", 1.0)), 0.5), "neither grey nor of three colours, as hue need"),
        ((images, ALL[:1], 1.5), "probability 1.5"),
        ((images.astype(jnp.int32), ALL[:1], 0.5), "int32 images"),
        ((images[0], ALL[:1], 0.5), "not float"),
    ):
        with pytest.raises(ValueError, match=message):
            augment(KEY, *arguments)
    np.testing.assert_array_equal(augment(KEY, images, (), 0.5), images)
