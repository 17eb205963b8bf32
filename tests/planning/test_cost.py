"""FLOPs and exchanges read from compiled programs, against closed forms and the law of ZeRO."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gormley_vision.config import default_config
from gormley_vision.experiment import described as described_data
from gormley_vision.experiment import mesh_of
from gormley_vision.planning.cost import cost_of
from gormley_vision.planning.plan import lower


def compiled(function, *shapes):
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()


def scanned(times):
    """x -> x w1 w2 ..., in a loop."""
    return lambda x, w: jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=times)[0]


def test_a_loops_body_counts_as_often_as_it_runs():
    shapes = (32, 64), (64, 64)
    once = 2 * 32 * 64 * 64
    for times in (1, 7):
        assert cost_of(compiled(scanned(times), *shapes).as_text()).flops == times * once
    program = compiled(scanned(7), *shapes)
    assert program.cost_analysis()["flops"] < 2 * once  # the compiler's own count: why the correction is needed


def test_a_loop_within_a_loop_multiplies():
    def nested(x, w):
        return jax.lax.scan(lambda x, _: (scanned(3)(x, w), None), x, None, length=5)[0]

    cost = cost_of(compiled(nested, (32, 64), (64, 64)).as_text())
    assert cost.flops == 15 * 2 * 32 * 64 * 64
    assert cost.unknown_loops == 0


def test_a_loop_whose_length_depends_on_data_is_told():
    def doubled(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 1e6, lambda x: x @ x, x)

    cost = cost_of(compiled(doubled, (64, 64)).as_text())
    assert cost.unknown_loops == 1
    assert cost.flops == 2 * 64**3  # once


@pytest.mark.parametrize(
    ("strides", "padding", "dilation"),
    [((1, 1), "VALID", None), ((2, 1), "SAME", None), ((1, 1), ((1, 2), (3, 0)), (2, 3))],
)
def test_a_convolution_multiplies_where_window_and_image_meet(strides, padding, dilation):
    """With ones for image and kernel, each output is the number of multiplications that made it."""

    def convolve(image, kernel):
        names = jax.lax.conv_dimension_numbers(image.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
        return jax.lax.conv_general_dilated(image, kernel, strides, padding, dilation, dimension_numbers=names)

    shapes = (2, 7, 6, 3), (3, 4, 3, 5)
    products = jnp.sum(convolve(*map(jnp.ones, shapes)))
    assert cost_of(compiled(convolve, *shapes).as_text()).flops == 2 * products


def vit(**overrides):
    config = default_config("classification")
    config.data.update(source="fake", image_size=16, batch_size=16)
    config.vit.update(width=32, depth=3, mlp=128, heads=2, patch_size=4)
    config.update_from_flattened_dict(overrides)
    return config.to_dict()


def described(config):
    return described_data(config, tuple("0123456789"), 1000)


def step_text(config, devices):
    mesh = mesh_of(config, devices)
    lowered, _ = lower(config, mesh, described(config))
    return lowered.compile().as_text()


def test_a_vits_step_has_the_flops_of_its_matrices():
    """Products forward, and twice as many backward, but for the gradient of pixels, which nobody needs."""
    tokens, width, mlp, depth, images = 17, 32, 128, 3, 16
    layer = 4 * width * width + 2 * width * mlp + 2 * tokens * width  # products a token: matrices, scores, values
    forward = images * (tokens * depth * layer + 16 * 16 * width + width * 10)
    expected = 2 * (3 * forward - images * 16 * 16 * width)  # pixels have no gradient
    for scan in (False, True):
        flops = cost_of(step_text(vit(**{"vit.scan": scan}), jax.devices()[:1])).flops
        assert flops == pytest.approx(expected, rel=1e-3)


def test_zeros_exchange_does_not_grow_with_the_batch():
    """Parameters are gathered and gradients summed, whatever the images: activations stay with their device."""
    sent = {}
    for batch in (16, 64):
        config = vit(**{"data.batch_size": batch, "mesh.fsdp": 8, "vit.scan": True})
        cost = cost_of(step_text(config, jax.devices()))
        sent[batch] = sum(collective.wire_bytes for collective in cost.collectives)
    assert sent[64] == pytest.approx(sent[16], rel=0.05)
    parameters = 4 * 3 * (4 * 32 * 32 + 2 * 32 * 128)
    assert parameters < sent[16] < 8 * parameters


def gan(**overrides):
    config = default_config("gan")
    config.data.update(
        source="fake", image_size=32, batch_size=32
    )  # each device has some of each part of a kernel's gradient
    config.generator.width = config.discriminator.width = 16
    config.update_from_flattened_dict(overrides)
    return config.to_dict()


@pytest.mark.parametrize("sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
@pytest.mark.parametrize("make", [vit, gan])
def test_eight_devices_share_the_work_of_one(make, sizes):
    """Nobody computes what another does, but for the small layers that rules leave whole."""

    def flops(*sizes):
        mesh = dict(zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), sizes, strict=True))
        return cost_of(step_text(make(**mesh), jax.devices()[: math.prod(sizes)])).flops

    share = flops(1, 1, 1) / 8
    assert share <= flops(*sizes) < 1.1 * share


@pytest.mark.parametrize("make", [vit, pytest.param(gan, marks=pytest.mark.slow)])
def test_a_batch_in_pieces_keeps_the_activations_of_one(make):
    def needed(microbatches):
        config = make(accumulate=microbatches, **{"data.batch_size": 256})
        lowered, _ = lower(config, mesh_of(config, jax.devices()[:1]), described(config))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert needed(8) < needed(1) / 3


def test_exchanges_have_their_group_and_ring_bytes():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def sharded(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=sharded("a"))
    text = jax.jit(lambda x: x, out_shardings=sharded()).lower(x).compile().as_text()
    (gather,) = cost_of(text).collectives
    assert (gather.kind, gather.group, gather.payload) == ("all-gather", 4, 64 * 32 * 4)
    assert gather.wire_bytes == 64 * 32 * 4 * 3 / 4
    text = jax.jit(lambda x: jnp.sum(x, 0), out_shardings=sharded()).lower(x).compile().as_text()
    (reduce,) = cost_of(text).collectives
    assert (reduce.kind, reduce.group) == ("all-reduce", 4)
    assert reduce.wire_bytes == 2 * 32 * 4 * 3 / 4
