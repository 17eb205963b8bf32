"""On a mesh, the layers' operations are those of one device, wherever their arrays lie."""

import contextlib
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gormley_vision.layers.convolution import convolve, convolve_transposed
from gormley_vision.layers.partition import gathered, split_by_image
from gormley_vision.mesh_rules import MESH_AXES
from gormley_vision.training.sharding import make_mesh


def mesh_of(*sizes):
    return make_mesh(dict(zip(MESH_AXES, sizes, strict=True)), batch_size=16, devices=jax.devices()[: math.prod(sizes)])


def pulled(function, arguments, weights, mesh=None):
    """Its value, and the gradients of <weights, value>."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh) if mesh else contextlib.nullcontext():
        value, pull = jax.vjp(function, *arguments)
        return value, *pull(weights)


def assert_close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("operation", [convolve, convolve_transposed])
def test_a_convolution_of_sides_that_lie_differently_is_that_of_one_device(operation):
    """Where one side lies by its rows, what XLA's partitioner makes of it by itself is wrong by the gradient's size."""
    mesh = mesh_of(2, 1, 2)
    function = partial(operation, stride=2, padding=(1, 1))
    keys = jax.random.split(jax.random.key(0), 3)
    arguments = jax.random.normal(keys[0], (16, 16, 16, 8)), jax.random.normal(keys[1], (4, 4, 8, 8))
    weights = jax.random.normal(keys[2], jax.eval_shape(function, *arguments).shape)
    expected = pulled(function, arguments, weights)
    by_image, by_rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], [None, "tensor"], []))
    for x, y in itertools.product((by_image, by_rows, whole), repeat=2):
        run = jax.jit(partial(pulled, function, mesh=mesh), in_shardings=((x, whole), y), out_shardings=whole)
        assert_close(run(arguments, weights), expected)


def test_convolutions_in_a_row_whose_kernels_are_split_are_those_of_one_device():
    """Left to itself, XLA's partitioner makes wrong values of the second."""
    mesh = mesh_of(2, 2, 2)

    def function(x, first, second):
        x = jax.nn.relu(convolve_transposed(x, first, stride=2, padding=(1, 1)))
        return convolve_transposed(x, second, stride=2, padding=(1, 1))

    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (16, 4, 4, 16), (4, 4, 8, 16), (4, 4, 3, 8)
    arguments = tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=False))
    weights = jax.random.normal(keys[3], (16, 16, 16, 3))
    by_image, both, one = (
        NamedSharding(mesh, PartitionSpec(*axes))
        for axes in ([("data", "fsdp")], [None, None, "fsdp", "tensor"], [None, None, None, "tensor"])
    )
    run = jax.jit(partial(pulled, function, mesh=mesh), in_shardings=((by_image, both, one), by_image))
    assert_close(run(arguments, weights), pulled(function, arguments, weights))


def test_without_a_mesh_nothing_is_said():
    x = jnp.ones((4, 2))
    assert split_by_image(x) is x
    assert gathered(x, (0, 1)) is x
