"""Schedules in closed form, what decays, what layers' rates are, what Muon takes, and what a linear probe leaves alone.

What differs from parameter to parameter goes by the names of axes; where they do not tell, it is refused.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

from gormley_vision.errors import UserError
from gormley_vision.models.dcgan import Discriminator, Generator
from gormley_vision.models.vit import ViT
from gormley_vision.tasks.optimizers import make_schedule, make_scheduled_optimizer, matrix_axes

DEPTH = 3


def ones(**sizes):
    return nn.LogicallyPartitioned(jnp.ones(tuple(sizes.values())), tuple(sizes))


NAMED = {
    "patch_embedding": ones(patch_height=2, patch_width=2, patch_in=1, patch_out=4),
    "patch_bias": ones(patch_out=4),
    "class_token": ones(one=1, tokens=1, embed=4),
    "position_embedding": ones(one=1, tokens=5, embed=4),
    "encoder": {
        "mlp": {"kernel": ones(layers=DEPTH, embed=4, mlp=4), "bias": ones(layers=DEPTH, mlp=4)},
        "attention": {"rope_frequencies": ones(layers=DEPTH, coordinates=2, heads=2, frequencies=1)},
    },
    "norm": {"scale": ones(embed=4)},
    "head": {"kernel": ones(embed=4, classes=3), "bias": ones(classes=3)},
}
PARAMS = nn.unbox(NAMED)


PLAIN = {
    "params": NAMED,
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
    optimizer = make_scheduled_optimizer(**PLAIN | options)
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
    for name in ("patch_embedding", "patch_bias", "class_token", "position_embedding"):
        np.testing.assert_allclose(step[name], -0.5 / 16)


def test_clipping_is_by_the_norm_of_all():
    norm = float(optax.tree.norm(ONES))
    step = updates(ONES, clip_norm=1.0)
    np.testing.assert_allclose(step["norm"]["scale"], -0.5 / norm, rtol=1e-6)


def test_muon_makes_each_matrix_of_the_layers_orthogonal_and_leaves_the_rest_to_adam():
    net = ViT(classes=5, width=24, depth=2, mlp=48, heads=3, patch_size=4, position="none", rope="naver_mixed")
    named = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    params = nn.unbox(named)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    gradients = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)
    optimizer = make_scheduled_optimizer(**PLAIN | {"params": named, "name": "muon", "momentum": 0.95})
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


# ---------------------------------------------------------------------------------------------------------
# What the names of axes say, and what they do not.


def muon_axes(module, *inputs, **options):
    """{path: (axes of one side, axes of the other)} of the matrices that Muon takes of a module."""
    params = jax.eval_shape(lambda key: module.init(key, *inputs, **options), jax.random.key(0))["params"]
    leaves = jax.tree_util.tree_leaves_with_path(matrix_axes(params), is_leaf=lambda x: hasattr(x, "_fields"))
    return {"/".join(key.key for key in path): tuple(axes) for path, axes in leaves}


def test_muon_takes_each_hidden_matrix_of_a_vit_by_its_sides():
    options = {"pooling": "map", "representation": 6, "registers": 1, "qk_norm": True, "layer_scale": 0.1}
    net = ViT(width=8, depth=2, mlp=12, heads=2, patch_size=4, classes=3, rope="naver_mixed", **options)
    assert muon_axes(net, jnp.zeros((1, 8, 8, 1))) == {
        "encoder/attention/qkv/kernel": ((1,), (2, 4)),  # [L, D, K, 3, Dh]: from D to K*Dh, for each of Q, K, V
        "encoder/attention/out/kernel": ((1, 2), (3,)),  # [L, K, Dh, D]
        "encoder/mlp/in/kernel": ((1,), (2,)),  # [L, D, F]
        "encoder/mlp/out/kernel": ((1,), (2,)),  # [L, F, D]
        **{f"pooling_head/{name}/kernel": ((0,), (1, 2)) for name in ("query", "key", "value")},  # [D, K, Dh]
        "pooling_head/out/kernel": ((0, 1), (2,)),
        "pooling_head/mlp/in/kernel": ((0,), (1,)),
        "pooling_head/mlp/out/kernel": ((0,), (1,)),
        "representation/kernel": ((0,), (1,)),
    }  # and neither embeddings nor the head


def test_muon_takes_convolutions_but_those_that_see_or_make_the_image():
    """[k*k*in, out], as its authors do it; the first one is Adam's (github.com/KellerJordan/Muon)."""
    images = jnp.zeros((2, 32, 32, 3))  # three layers in each: 4, 8, 16, 32
    found = muon_axes(Discriminator(width=4), images, train=True)
    assert found == {f"Convolution_{i}/kernel": ((0, 1, 2), (3,)) for i in (1, 2)}
    found = muon_axes(Generator((32, 32, 3), width=4), jnp.zeros((2, 8)), train=True)
    assert found == {f"TransposedConvolution_{i}/kernel": ((0, 1, 2), (3,)) for i in (0, 1)}  # [k*k*out, in]


def test_a_decoders_tokens_are_embedded_and_its_answers_are_not():
    """Of a net that is none of ours: embeddings are scaled down most, the answer is not; neither is Muon's."""
    named = {
        "embedding": ones(vocab=5, embed=4),
        "blocks": {"in": ones(layers=2, embed=4, mlp=4)},
        "answer": {"kernel": ones(embed=4, vocab=5), "bias": ones(vocab=5)},
    }
    params = nn.unbox(named)
    optimizer = make_scheduled_optimizer(**PLAIN | {"params": named, "layer_decay": 0.5, "weight_decay": 0.1})
    step, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    decayed = -0.5 * 1.1
    np.testing.assert_allclose(step["embedding"], decayed / 8, rtol=1e-6)
    np.testing.assert_allclose(step["blocks"]["in"][:, 0, 0], [decayed / 4, decayed / 2], rtol=1e-6)
    np.testing.assert_allclose(step["answer"]["kernel"], decayed, rtol=1e-6)
    np.testing.assert_allclose(step["answer"]["bias"], -0.5, rtol=1e-6)
    axes = matrix_axes(named)
    assert (axes["embedding"], axes["answer"]["kernel"], tuple(axes["blocks"]["in"])) == (None, None, ((1,), (2,)))


@pytest.mark.parametrize("options", [{"name": "adam"}, {"name": "momentum_sgd", "momentum": 0.9}])
def test_parameters_without_names_are_trained_where_nobody_asks(options):
    named, unnamed = (make_scheduled_optimizer(**PLAIN | options | {"params": x}) for x in (NAMED, PARAMS))
    steps = [jax.jit(x.update)(ONES, x.init(PARAMS), PARAMS) for x in (named, unnamed)]
    jax.tree.map(np.testing.assert_array_equal, *steps)


@pytest.mark.parametrize("options", [{"name": "muon"}, {"weight_decay": 0.1}])
def test_a_bias_needs_no_name(options):
    params = {"kernel": ones(embed=4, mlp=4), "bias": jnp.ones(4)}
    make_scheduled_optimizer(**PLAIN | options | {"params": params})


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        (
            {"Dense_0": {"kernel": jnp.ones((4, 3))}},
            {"name": "muon"},
            "optimizer.name=muon: Dense_0/kernel [4, 3] does not say whether it is a matrix: name its axes "
            "as in gormley_vision/axes.py, or pass --config.optimizer.name=adam",
        ),
        (
            {"kernel": nn.LogicallyPartitioned(jnp.ones((4, 3)), ("embed", None))},
            {"weight_decay": 0.1},
            "optimizer.weight_decay=0.1: kernel [4, 3] does not say whether it is a matrix: name its axes "
            "as in gormley_vision/axes.py, or pass --config.optimizer.weight_decay=0",
        ),
        ({"kernel": ones(pixels=4, mlp=3)}, {"name": "muon"}, "kernel [4, 3] does not say whether it is a matrix"),
        (
            {"kernel": ones(embed=4, representation=2, mlp=3)},
            {"name": "muon"},
            "kernel [4, 2, 3] does not say which of its axes (embed, representation, mlp) make two sides of a matrix: "
            "name its axes as in gormley_vision/axes.py, or pass --config.optimizer.name=adam",
        ),
        (
            {"kernel": ones(layers=2, embed=4), "bias": jnp.ones(4)},
            {"layer_decay": 0.5},
            "optimizer.layer_decay=0.5: bias [4] does not say whether it belongs to the layers or to an embedding: "
            "name its axes as in gormley_vision/axes.py, or pass --config.optimizer.layer_decay=1",
        ),
        (
            {"kernel": ones(embed=4, mlp=3)},
            {"layer_decay": 0.5},
            "one stack of layers, and the parameters have no axis 'layers': pass --config.optimizer.layer_decay=1",
        ),
        (
            {"encoder": ones(layers=2, embed=4), "decoder": ones(layers=3, embed=4)},
            {"layer_decay": 0.5},
            "needs one stack of layers, and the parameters have stacks of 2, 3 layers",
        ),
    ],
)
def test_what_the_names_do_not_tell_is_refused(params, options, message):
    with pytest.raises(UserError) as refusal:
        make_scheduled_optimizer(**PLAIN | options | {"params": params})
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
