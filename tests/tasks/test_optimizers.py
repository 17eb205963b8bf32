"""Schedules in closed form, what decays, what layers' rates are, and what a linear probe leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

from gormley_vision.models.vit import ViT
from gormley_vision.tasks.optimizers import make_classifier_optimizer, make_schedule

DEPTH = 3
PARAMS = {
    "patch_embedding": jnp.ones((2, 2, 1, 4)),
    "class_token": jnp.ones((1, 1, 4)),
    "position_embedding": jnp.ones((1, 5, 4)),
    "encoder": {
        "mlp": {"kernel": jnp.ones((DEPTH, 4, 4)), "bias": jnp.ones((DEPTH, 4))},
        "attention": {"rope_frequencies": jnp.ones((DEPTH, 2, 2, 1))},
    },
    "norm": {"scale": jnp.ones(4)},
    "head": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)},
}


PLAIN = {
    "name": "momentum_sgd",
    "learning_rate": 0.5,
    "schedule": "constant",
    "warmup_steps": 0,
    "total_steps": 10,
    "momentum": 0.0,
    "beta2": 0.999,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "layer_decay": 1.0,
    "only_head": False,
}


def updates(gradients, **options):
    optimizer = make_classifier_optimizer(**PLAIN | options)
    step, _ = jax.jit(optimizer.update)(gradients, optimizer.init(PARAMS), PARAMS)
    return step


ONES = jax.tree.map(jnp.ones_like, PARAMS)
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def test_the_schedule_warms_up_and_falls_along_half_a_cosine():
    rate = make_schedule("cosine", 2.0, warmup_steps=4, total_steps=12)
    np.testing.assert_allclose([rate(t) for t in range(4)], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(rate(8), 1.0, rtol=1e-6)  # half way down
    np.testing.assert_allclose(rate(6), 1 + np.cos(np.pi / 4), rtol=1e-6)
    assert 0 < rate(11) < rate(10)
    np.testing.assert_allclose([rate(12), rate(99)], 0, atol=1e-6)
    constant = make_schedule("constant", 2.0, warmup_steps=2, total_steps=12)
    np.testing.assert_allclose([constant(t) for t in (0, 1, 11)], [1, 2, 2])


def test_only_matrices_decay_and_the_rate_multiplies_the_decay():
    step = updates(ZEROS, weight_decay=0.1)
    moved = {
        "/".join(k.key for k in path): float(x.min())
        for path, x in jax.tree_util.tree_leaves_with_path(step)
        if x.any()
    }
    assert moved.keys() == {"encoder/mlp/kernel", "head/kernel", "patch_embedding"}
    np.testing.assert_allclose(list(moved.values()), -0.5 * 0.1, rtol=1e-6)


def test_layer_decay_is_a_power_of_the_distance_from_the_head():
    step = updates(ONES, layer_decay=0.5)
    np.testing.assert_allclose(step["head"]["kernel"], -0.5)
    np.testing.assert_allclose(step["norm"]["scale"], -0.5)
    for leaf in (step["encoder"]["mlp"]["kernel"], step["encoder"]["attention"]["rope_frequencies"]):
        np.testing.assert_allclose(leaf.reshape(DEPTH, -1)[:, 0], [-0.5 / 8, -0.5 / 4, -0.5 / 2])
    for name in ("patch_embedding", "class_token", "position_embedding"):
        np.testing.assert_allclose(step[name], -0.5 / 16)


def test_clipping_is_by_the_norm_of_all():
    norm = float(optax.tree.norm(ONES))
    step = updates(ONES, clip_norm=1.0)
    np.testing.assert_allclose(step["norm"]["scale"], -0.5 / norm, rtol=1e-6)


def test_muon_makes_each_matrix_of_the_layers_orthogonal_and_leaves_the_rest_to_adam():
    net = ViT(classes=5, width=24, depth=2, mlp=48, heads=3, patch_size=4, position="none", rope="naver_mixed")
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    keys = iter(jax.random.split(jax.random.key(1), 99))
    gradients = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)
    optimizer = make_classifier_optimizer(**PLAIN | {"name": "muon", "momentum": 0.95})
    step, state = jax.jit(optimizer.update)(gradients, jax.jit(optimizer.init)(params), params)
    step, gradients = jax.device_get((step, gradients))
    layers = step["encoder"]
    qkv, out = layers["attention"]["qkv"]["kernel"], layers["attention"]["out"]["kernel"]
    matrices = [qkv[layer, :, :, i].reshape(24, 24) for layer in range(2) for i in range(3)]
    matrices += [*out.reshape(2, 24, 24), *layers["mlp"]["in"]["kernel"], *layers["mlp"]["out"]["kernel"]]
    for matrix in matrices:  # at rate 0.5, of root mean square 0.2; Newton-Schulz ends with 0.7 to 1.2 for 1
        unit = matrix / (0.5 * 0.2 * max(matrix.shape) ** 0.5)
        singular = np.linalg.svd(unit, compute_uv=False)
        assert 0.6 < singular[-4] <= singular[0] < 1.3  # a square matrix' last few are too small for five iterations
    u, _, vt = np.linalg.svd(gradients["encoder"]["mlp"]["in"]["kernel"][0], full_matrices=False)
    ours = layers["mlp"]["in"]["kernel"][0].ravel()
    nearest = (u @ vt).ravel()
    assert ours @ nearest < -0.95 * np.linalg.norm(ours) * np.linalg.norm(nearest)
    # The first update of Adam with Nesterov momentum: (b m1 + (1 - b) g) over the second moment's root, corrected.
    b, g = 0.95, gradients["head"]["kernel"]
    first = b * (1 - b) / (1 - b**2) + (1 - b) / (1 - b)
    np.testing.assert_allclose(step["head"]["kernel"], -0.5 * first * np.sign(g), rtol=1e-4)
    assert layers["attention"]["rope_frequencies"].any()
    restored = serialization.from_bytes(state, serialization.to_bytes(state))  # what checkpoints rest on
    jax.tree.map(np.testing.assert_array_equal, state, restored)


@pytest.mark.parametrize("name", ["adam", "muon", "momentum_sgd"])
def test_a_linear_probe_moves_the_head_alone(name):
    step = updates(ONES, name=name, only_head=True, weight_decay=0.1)
    head = step.pop("head")
    assert all((x != 0).all() for x in jax.tree.leaves(head))
    assert not any(x.any() for x in jax.tree.leaves(step))


def test_adam_is_the_formula():
    step = updates(ONES, name="adam", momentum=0.9, weight_decay=0.1)
    # The first bias-corrected moments of a gradient of ones are ones.
    np.testing.assert_allclose(step["head"]["bias"], -0.5 / (1 + 1e-8), rtol=1e-5)
    np.testing.assert_allclose(step["head"]["kernel"], -0.5 * (1 + 0.1), rtol=1e-5)
