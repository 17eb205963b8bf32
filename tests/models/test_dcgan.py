"""Parameter counts from the papers' code, shapes at every size, initial weights, and parity with PyTorch's layers."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.errors import UserError
from gormley_vision.models.dcgan import Discriminator, Generator, halvings


def count(variables) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def init(module, seed, *inputs):
    return nn.unbox(jax.jit(partial(module.init, train=True))(jax.random.key(seed), *inputs))


def run(module, variables, *inputs):
    return jax.jit(partial(module.apply, train=False))(variables, *inputs)


def shapes(module, *inputs):
    return nn.unbox(jax.eval_shape(lambda key: module.init(key, *inputs, train=True), jax.random.key(0)))


def test_parameter_counts_of_the_two_published_variants():
    images = jnp.zeros((2, 64, 64, 3))
    # pytorch/examples dcgan at its defaults (ngf = ndf = 64, nz = 100) prints these.
    assert count(shapes(Generator((64, 64, 3)), jnp.zeros((2, 100)))) == 3_576_704
    assert count(shapes(Discriminator(), images)) == 2_765_568
    # Newmu/dcgan_code, faces: ngf = ndf = 128, 5x5 kernels, no biases, gain and shift per normalised channel.
    weights = 100 * 1024 * 16 + 25 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
    norms = 2 * (1024 + 512 + 256 + 128)
    assert count(shapes(Generator((64, 64, 3), width=128, kernel_size=5), jnp.zeros((2, 100)))) == weights + norms
    weights = 25 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024) + 1024 * 16
    assert count(shapes(Discriminator(128, 5), images)) == weights + 2 * (256 + 512 + 1024)


@pytest.mark.parametrize("size", [16, 20, 24, 28, 32, 48, 64, 96, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_generates_and_is_judged(size, channels):
    def game(key):
        generator, discriminator = Generator((size, size, channels), width=2), Discriminator(width=2)
        images, _ = generator.init_with_output(key, jnp.zeros((3, 5)), train=True)
        logits, _ = discriminator.init_with_output(key, images, train=True)
        return images, logits

    images, logits = jax.eval_shape(game, jax.random.key(0))
    assert images.shape == (3, size, size, channels)
    assert logits.shape == (3,)


def test_depth_follows_from_the_size():
    assert [halvings(size) for size in (16, 28, 32, 64, 128)] == [(4, 2), (7, 2), (4, 3), (4, 4), (4, 5)]


@pytest.mark.parametrize(("size", "near"), [(30, 28), (8, 16), (33, 32), (256, 128), (100, 96)])
def test_other_sizes_are_refused_with_the_nearest(size, near):
    with pytest.raises(UserError, match=f"image_size={near}"):
        halvings(size)


def test_initial_weights():
    variables = init(Generator((32, 32, 3)), 3, jnp.zeros((2, 100)))
    kernel = variables["params"]["TransposedConvolution_0"]["kernel"]
    np.testing.assert_allclose([kernel.mean(), kernel.std()], [0, 0.02], atol=3e-4)
    scale = variables["params"]["BatchNorm_0"]["scale"]
    np.testing.assert_allclose([scale.mean(), scale.std()], [1, 0.02], atol=6e-3)
    assert "bias" not in str(jax.tree.structure(variables["params"]["Dense_0"]))


def test_labels_reach_both_players():
    key = jax.random.key(0)
    generator, discriminator = Generator((16, 16, 1), width=2, classes=3), Discriminator(2, classes=3)
    noise = jax.random.normal(key, (2, 4))
    first, second = jnp.array([0, 1]), jnp.array([2, 1])
    g = init(generator, 0, noise, first)
    images = [run(generator, g, noise, labels) for labels in (first, second)]
    assert not np.array_equal(images[0][0], images[1][0])
    np.testing.assert_array_equal(images[0][1], images[1][1])
    d = init(discriminator, 0, images[0], first)
    logits = [run(discriminator, d, images[0], labels) for labels in (first, second)]
    assert logits[0][0] != logits[1][0]
    assert logits[0][1] == logits[1][1]


def test_bfloat16_computes_in_bfloat16_and_keeps_parameters_and_outputs_in_float32():
    generator = Generator((16, 16, 1), width=2, dtype=jnp.dtype("bfloat16"))
    noise = jax.random.normal(jax.random.key(0), (8, 4))
    variables = init(generator, 1, noise)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    half = run(generator, variables, noise)
    full = run(generator.clone(dtype=jnp.float32), variables, noise)
    assert half.dtype == jnp.float32
    assert 0 < jnp.abs(half - full).max() < 0.03
