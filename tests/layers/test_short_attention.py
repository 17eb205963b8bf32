"""The TPU's attention kernel, interpreted: values and gradients are those of the plain operations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from gormley_vision.layers import attention, blocks, partition, short_attention
from gormley_vision.layers.attention import attend, plain_attention
from gormley_vision.models import vit


def draw(batch, queries, keys, heads, dim, dtype):
    rng = np.random.default_rng(0)
    shapes = [(batch, n, heads, dim) for n in (queries, keys, keys, queries)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def kernel(query, key, value, causal):
    flat = (x.reshape(*x.shape[:2], -1) for x in (query, key, value))
    return short_attention.short_attention(*flat, query.shape[2], causal, True).reshape(query.shape)


@pytest.mark.parametrize(
    ("sizes", "causal"),
    [
        ((2, 5, 5, 3, 8), False),
        ((1, 17, 17, 2, 64), True),  # a line of lanes for two heads
        ((2, 3, 9, 1, 16), False),  # fewer queries than keys
        ((1, 197, 197, 4, 80), False),  # ViT-H's heads
    ],
)
def test_values_and_gradients_are_those_of_plain_attention(sizes, causal):
    query, key, value, pull = draw(*sizes, jnp.float32)

    def results(function):
        return jax.vjp(lambda *inputs: function(*inputs, causal=causal), query, key, value)

    mixed, backward = results(kernel)
    expected, expected_backward = results(plain_attention)
    np.testing.assert_allclose(mixed, expected, atol=2e-5)
    for mine, other in zip(backward(pull), expected_backward(pull), strict=True):
        np.testing.assert_allclose(mine, other, atol=5e-5)


def test_bfloat16_is_as_near_to_float32_as_plain_bfloat16():
    exact = draw(2, 50, 50, 2, 64, jnp.float32)[:3]
    rounded = [x.astype(jnp.bfloat16) for x in exact]
    expected = plain_attention(*exact)
    errors = [
        float(jnp.abs(found.astype(jnp.float32) - expected).max())
        for found in (kernel(*rounded, causal=False), plain_attention(*rounded))
    ]
    assert errors[0] <= 1.5 * errors[1]


@pytest.mark.parametrize(
    ("heads", "dim", "rows", "group"),
    [
        (16, 64, 197 * 2, 16),  # L/16: 0.4 MiB
        (16, 80, 257 * 2, 8),  # H/14: 640 columns, five lines of lanes
        (48, 128, 257 * 2, 6),  # 22B: the largest divisor of 48 below 1,020 columns
        (3, 72, 10**6, 3),  # no part of three times 72 columns is full lanes
        (4, 128, 10**6, 1),  # too large at any rate: the smallest
    ],
)
def test_heads_at_a_grid_point(heads, dim, rows, group):
    assert short_attention._group(heads, dim, rows) == group


def test_groups_of_heads_give_the_same(monkeypatch):
    inputs = draw(2, 9, 9, 4, 64, jnp.float32)[:3]
    expected = kernel(*inputs, causal=False)
    monkeypatch.setattr(short_attention, "_BLOCK_BYTES", 9 * 4 * 128)
    assert short_attention._group(4, 64, 9 * 4) == 2
    np.testing.assert_array_equal(kernel(*inputs, causal=False), expected)


def planned(mesh):
    """The mesh as it would be of TPUs."""
    kind = type(mesh.abstract_device)
    device = kind(device_kind="TPU v5", num_cores=1, platform="tpu")
    return AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=mesh.axis_types, abstract_device=device)


@pytest.fixture
def mesh():
    return jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


@pytest.mark.parametrize(
    ("dtype", "length", "masked", "found"),
    [
        (jnp.bfloat16, 17, False, True),
        (jnp.float32, 17, False, False),
        (jnp.bfloat16, 513, False, False),
        (jnp.bfloat16, 17, True, False),
    ],
)
def test_a_mesh_of_tpus_gets_the_kernel(mesh, dtype, length, masked, found):
    query, key, value, _ = draw(4, length, length, 2, 64, dtype)
    mask = jnp.ones((4, 1, length, length), bool) if masked else None
    with jax.sharding.use_abstract_mesh(planned(mesh.abstract_mesh)):
        assert partition.mesh_platform() == "tpu"
        program = str(jax.make_jaxpr(partial(attend, mask=mask))(query, key, value))
    assert ("pallas_call" in program) == found
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        assert partition.mesh_platform() == "cpu"
        assert "pallas_call" not in str(jax.make_jaxpr(attend)(query, key, value))


def test_each_device_computes_its_images_and_heads(mesh, monkeypatch):
    """Interpreted on eight devices, two of which share an image's heads."""
    inputs = draw(4, 9, 9, 4, 64, jnp.float32)[:3]
    interpreted = partial(short_attention.short_attention, interpret=True)
    monkeypatch.setattr(attention, "short_attention", lambda *arguments: interpreted(*arguments))
    with jax.set_mesh(mesh):
        mixed = jax.jit(partial(attention._short, mask=None, causal=False))(*inputs)
    np.testing.assert_allclose(mixed, plain_attention(*inputs), atol=2e-5)


def test_layers_that_keep_named_arrays_have_the_same_gradients_and_keep_less(monkeypatch):
    """On a TPU; here the choice alone is that of a TPU."""
    net = vit.ViT(width=32, depth=3, mlp=64, heads=2, patch_size=4, classes=3, scan=True)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 16, 16, 3)), jnp.float32)
    variables = net.init(jax.random.key(0), images)

    def kept_and_gradients():
        def loss(variables):
            return jnp.sum(net.apply(variables, images) ** 2 + net.apply(variables, images))

        _, pull = jax.vjp(loss, variables)
        kept = sum(x.size for x in jax.tree.leaves(pull) if hasattr(x, "size"))
        return kept, jax.jit(jax.grad(loss))(variables)

    everything, expected = kept_and_gradients()
    monkeypatch.setattr(blocks, "mesh_platform", lambda: "tpu")
    named, gradients = kept_and_gradients()
    assert named < 0.7 * everything
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), gradients, expected)
