"""On a mesh, the layers' operations are those of one device, whatever lay where before."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gormley_vision.layers.convolution import convolve, convolve_transposed
from gormley_vision.layers.partition import split_by_image
from gormley_vision.training.sharding import AXES, make_mesh

MESH = dict(zip(AXES, (2, 1, 2), strict=True))


@pytest.mark.parametrize("operation", [convolve, convolve_transposed])
def test_a_convolution_of_sides_that_lie_differently_has_the_gradients_of_one_device(operation):
    """Where one side lies by its rows, what XLA's partitioner makes of it by itself is wrong by the gradient's size."""
    mesh = make_mesh(MESH, batch_size=16, devices=jax.devices()[:4])
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (16, 16, 16, 8))
    kernel = jax.random.normal(keys[1], (4, 4, 8, 8))
    y = jax.eval_shape(lambda: operation(x, kernel, stride=2, padding=(1, 1)))
    weights = jax.random.normal(keys[2], y.shape)

    def gradients(x, kernel, weights):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            pull = jax.vjp(lambda x, kernel: operation(x, kernel, stride=2, padding=(1, 1)), x, kernel)[1]
            return pull(weights)

    expected = jax.vjp(lambda x, kernel: operation(x, kernel, stride=2, padding=(1, 1)), x, kernel)[1](weights)
    by_image, by_rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], [None, "tensor"], []))
    for sides in itertools.product((by_image, by_rows, whole), [whole], (by_image, by_rows, whole)):
        found = jax.jit(gradients, in_shardings=sides, out_shardings=whole)(x, kernel, weights)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_without_a_mesh_nothing_is_said():
    x = jnp.ones((4, 2))
    assert split_by_image(x) is x
