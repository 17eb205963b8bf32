"""The players' nets: published parameter counts, shapes, and the laws that their parts obey."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers import attention
from gormley_vision.layers.gan import Convolution, doubled, halved, logit_head
from gormley_vision.models import dcgan, dense_gan, patchgan, r3gan, resnet_gan, vit_gan

KEY = jax.random.key(0)
SMALL, COLOUR = (28, 28, 1), (32, 32, 3)
LABELS = jnp.zeros(2, jnp.int32)


def noise(size):
    return jnp.zeros((2, size))


def images(shape):
    return jnp.zeros((2, *shape))


def parameters(module, *inputs):
    variables = jax.eval_shape(partial(module.init, train=True), KEY, *inputs)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("net", "inputs", "expected"),
    [
        # Goodfellow et al. 2014, mnist.yaml: 100-1200-1200-784, and 784-240x5-240x5-1.
        (dense_gan.Generator(SMALL), (noise(100),), 101 * 1200 + 1201 * 1200 + 1201 * 784),
        (dense_gan.Discriminator(), (images(SMALL),), 785 * 1200 + 241 * 1200 + 241),
        # SNGAN at 32 pixels, as kwotsin/mimicry counts its generator; StudioGAN: 1.06M for a discriminator of its kind.
        (resnet_gan.Generator(COLOUR, 256), (noise(128),), 4_276_739),
        (resnet_gan.Discriminator(128), (images(COLOUR),), 1_053_824),
        # WGAN-GP's: the same with 128 channels, and a bias at the end.
        (
            resnet_gan.Generator(COLOUR, 128),
            (noise(128),),
            129 * 2048 + 3 * (2 * (9 * 128 + 1) * 128 + 129 * 128 + 512) + 256 + (9 * 128 + 1) * 3,
        ),
        (resnet_gan.Discriminator(128, pooling="mean"), (images(COLOUR),), 1_053_825),
        # R3GAN's conditional config for CIFAR-10: 20.78M and 21.28M.
        (r3gan.Generator(COLOUR, classes=10), (noise(64), LABELS), 20_781_952),
        (r3gan.Discriminator(classes=10), (images(COLOUR), LABELS), 21_280_512),
    ],
)
def test_published_counts(net, inputs, expected):
    assert parameters(net, *inputs) == expected


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    ("generator", "discriminator"),
    [
        (partial(resnet_gan.Generator, width=4), resnet_gan.Discriminator(4)),
        (partial(resnet_gan.Generator, width=4, doubling=True), resnet_gan.Discriminator(4, doubling=True)),
        (partial(r3gan.Generator, width=16, depth=1), r3gan.Discriminator(16, depth=1)),
        (partial(vit_gan.Generator, width=16, depth=1, heads=2), vit_gan.Discriminator(16, depth=1, heads=2)),
        (partial(dense_gan.Generator, width=8), dense_gan.Discriminator(8)),
    ],
)
def test_shapes_at_two_sizes(generator, discriminator, size):
    shape = (size, size, 3)
    z = jnp.ones((2, 5), jnp.bfloat16)
    made = jax.eval_shape(lambda: generator(shape).init_with_output(KEY, z, train=True)[0])
    assert (made.shape, made.dtype) == ((2, *shape), jnp.float32)
    logits = jax.eval_shape(lambda: discriminator.init_with_output(KEY, images(shape), train=True)[0])
    assert (logits.shape, logits.dtype) == ((2,), jnp.float32)


def test_widths_double_at_64_pixels():
    """1,024 channels at 4 pixels for a width of 64, as in the 64-pixel nets of SNGAN and WGAN-GP."""
    found = jax.eval_shape(
        partial(resnet_gan.Generator((64, 64, 3), 64, True).init, train=True), KEY, jnp.zeros((2, 128))
    )["params"]
    assert found["Dense_0"]["kernel"].value.shape == (128, 16 * 1024)
    found = jax.eval_shape(
        partial(resnet_gan.Discriminator(64, True).init, train=True), KEY, jnp.zeros((2, 64, 64, 3))
    )["params"]
    assert found["Dense_0"]["kernel"].value.shape == (1024, 1)


def test_sum_and_mean_pooling_differ_by_the_number_of_pixels():
    """8 x 8 pixels are summed (SNGAN) or averaged (WGAN-GP): without the bias, 64 times as much."""
    x = jax.random.normal(KEY, (2, *COLOUR))
    variables = resnet_gan.Discriminator(4, pooling="mean").init(KEY, x, train=True)
    mean = resnet_gan.Discriminator(4, pooling="mean").apply(variables, x, train=True)
    summed = resnet_gan.Discriminator(4, pooling="sum").apply(variables, x, train=True)
    np.testing.assert_allclose(summed, 64 * mean, rtol=1e-4)


def test_a_block_of_r3gan_starts_as_the_identity_and_with_its_gain():
    x = jax.random.normal(KEY, (2, 4, 4, 768))
    block = r3gan.Block(8)
    variables = block.init(KEY, x)
    np.testing.assert_array_equal(block.apply(variables, x), x)
    params = variables["params"]
    assert not params["out"]["kernel"].value.any()
    gain = math.sqrt(2 / 1.04) * 8 ** (-0.25)
    for kernel, fan in ((params["in"]["kernel"], 768), (params["grouped_kernel"], 9 * 16)):
        assert float(kernel.value.std()) == pytest.approx(gain / fan**0.5, rel=0.01)


def test_resampling_of_r3gan_by_hand():
    row = jnp.array([4.0, 8.0]).reshape(1, 1, 2, 1) * jnp.ones((1, 2, 1, 1))
    inner = np.array([3 * 4, 3 * 4 + 8, 3 * 8 + 4, 3 * 8]) / 4
    down_the_rows = np.array([3, 4, 4, 3]) / 4  # two equal rows, zeros outside
    np.testing.assert_allclose(r3gan.upsampled(row)[0, :, :, 0], np.outer(down_the_rows, inner))
    x = jax.random.normal(KEY, (1, 8, 8, 2))
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = np.array([1, 3, 3, 1]) / 8
    expected = sum(taps[i] * taps[j] * padded[:, i : i + 7 : 2, j : j + 7 : 2] for i in range(4) for j in range(4))
    np.testing.assert_allclose(r3gan.downsampled(x), expected, rtol=1e-5, atol=1e-6)


def test_doubling_then_halving_is_the_identity():
    x = jax.random.normal(KEY, (2, 3, 5, 4))
    np.testing.assert_allclose(halved(doubled(x)), x, rtol=1e-6)


@pytest.mark.parametrize(("size", "padding"), [(3, (1, 1)), (2, (0, 1)), (2, (1, 0)), (1, (0, 0)), (5, (2, 2))])
def test_a_convolution_that_resamples_is_both_in_turn(size, padding):
    x = jax.random.normal(KEY, (2, 6, 8, 3))
    net = Convolution(4, size, 1, padding, use_bias=True)
    variables = {"params": {"kernel": jax.random.normal(KEY, (size, size, 3, 4)), "bias": jnp.arange(4.0)}}
    after = net.clone(resampling="halved").apply(variables, x)
    np.testing.assert_allclose(after, halved(net.apply(variables, x)), rtol=1e-5, atol=1e-5)
    before = net.clone(resampling="doubled").apply(variables, x)
    np.testing.assert_allclose(before, net.apply(variables, doubled(x)), rtol=1e-5, atol=1e-5)


def test_maxout_takes_the_largest_piece():
    net = dense_gan.Discriminator(width=1, depth=1, pieces=3)
    kernels = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0, 0.5]]), "bias": jnp.zeros(3)}}
    kernels["Dense_1"] = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    logits = net.apply({"params": kernels}, jnp.array([[2.0], [-3.0]]), train=False)
    np.testing.assert_allclose(logits, [2, 6])


def test_a_projection_adds_the_product_with_the_class_vector():
    import flax.linen as nn

    class Head(nn.Module):
        conditioning: str

        @nn.compact
        def __call__(self, features, labels):
            return logit_head(features, labels, classes=2, conditioning=self.conditioning, dtype=jnp.float32)

    features, labels = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 0])
    params = {"Dense_0": {"kernel": jnp.array([[1.0], [1.0]])}}
    table = {"Embed_0": {"embedding": jnp.array([[10.0, 0.0], [0.0, 100.0]])}}
    logits = Head("projection").apply({"params": params | table}, features, labels)
    np.testing.assert_allclose(logits, [3 + 200, 7 + 30])
    by_class = {"Dense_1": {"kernel": jnp.eye(2), "bias": jnp.array([0.0, 1.0])}}
    logits, classes = Head("classifier").apply({"params": params | by_class}, features, labels)
    np.testing.assert_allclose(logits, [3, 7])
    np.testing.assert_allclose(classes, [[1, 3], [3, 5]])


def test_conditional_batch_norm_scales_by_class():
    """Every class has its own scale and bias; of a generator, so that two classes differ for the same noise."""
    net = dcgan.Generator((16, 16, 1), width=2, classes=3, conditioning="batch_norm")
    z = jnp.tile(jax.random.normal(KEY, (1, 4)), (2, 1))
    variables = net.init(KEY, z, LABELS, train=False)
    np.testing.assert_array_equal(*net.apply(variables, z, jnp.array([0, 1]), train=False))  # alike at first
    table = variables["params"]["ConditionalBatchNorm_0"]["bias"]
    moved = jax.tree_util.tree_map(lambda x: x, variables)
    moved["params"]["ConditionalBatchNorm_0"]["bias"] = table.replace_boxed(table.value.at[1].add(1.0))
    first, second = net.apply(moved, z, jnp.array([0, 1]), train=False)
    np.testing.assert_array_equal(first, net.apply(variables, z, jnp.array([0, 1]), train=False)[0])
    assert not np.allclose(first, second)


def test_discriminators_without_norms_have_biases_instead():
    """No BatchNorm, and a bias for each feature of each convolution."""
    for net in (dcgan.Discriminator(width=2, norm="none"), patchgan.PatchDiscriminator(34, 2, norm="none")):
        variables = jax.eval_shape(partial(net.init, train=True), KEY, images(COLOUR))
        assert "batch_stats" not in variables
        convolutions = [name for name in variables["params"] if name.startswith("Convolution")]
        assert all("bias" in variables["params"][name] for name in convolutions)


def test_attention_of_a_discriminator_has_a_second_derivative_wherever_it_runs(monkeypatch):
    """On a TPU in bfloat16 too, where the kernel that an encoder would use has none."""
    monkeypatch.setattr(attention, "mesh_platform", lambda: "tpu")
    asked = []
    choose = attention.choose_kernel
    monkeypatch.setattr(
        attention, "choose_kernel", lambda *about, **rest: asked.append(about) or choose(*about, **rest)
    )
    net = vit_gan.Discriminator(16, 1, 2, dtype=jnp.bfloat16)
    x = images(COLOUR)
    variables = jax.eval_shape(partial(net.init, train=True), KEY, x)

    def penalty(variables, x):
        return jnp.sum(jax.grad(lambda x: net.apply(variables, x, train=True).sum())(x) ** 2)

    jax.eval_shape(jax.grad(penalty), variables, x)
    assert not asked


def test_positions_of_a_transformer_are_rotations_alone():
    """Nothing is learned for a position: at two sizes a generator's parameters differ in the first layer only."""
    small, large = (
        jax.eval_shape(partial(vit_gan.Generator((s, s, 3), 16, 1, 2).init, train=True), KEY, jnp.zeros((2, 4)))
        for s in (16, 32)
    )
    differ = jax.tree.map(lambda a, b: a.shape != b.shape, small["params"], large["params"])
    assert {path[0].key for path, d in jax.tree_util.tree_leaves_with_path(differ) if d} == {"tokens"}
