"""One device, eight, 4x2 and 2x2x2: the same step, the same checkpoints, and no device that holds it all."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.fields import MESH_RULES
from gormley_vision.mesh_rules import MESH_AXES, Rule, parse_rules
from gormley_vision.tasks.accumulation import accumulated
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import first_state

# A conditional game of k = 2 as well: its first layers have other channels, and partitioners choose by them.
GAMES = {
    "gan": {"generator__width": 8, "discriminator__width": 8},
    "conditional gan": {"gan__discriminator_steps": 2, "gan__conditional": True},
}
EVERYTHING = "gan of everything"  # of the lab
# Of images to images: the game with masks, dropout and R1, and a net alone.
TRANSLATIONS = {
    "inpainting": {
        "translation__degradation": "strokes",
        "translation__patch": 64,
        "translation__objective": "least_squares",  # the gradient of D's last bias does not cancel
        "translation__r1": 1.0,
        "translation__l1": 1.0,
        "generator__levels": 6,  # the fewest with dropout
        "generator__dropout": 0.5,
        "generator__norm": "batch",  # no bias before it, whose gradient would be rounding alone
        "discriminator__norm": "none",
    },
    "instance norm": {
        "translation__patch": 64,
        "translation__objective": "least_squares",
        "translation__l1": 1.0,
        "generator__levels": 5,
        "generator__norm": "instance",
        "discriminator__norm": "instance",
    },
    "super-resolution": {
        "translation__degradation": "downscale",
        "translation__patch": 16,
        "translation__turns": True,
        "translation__adversarial": 0.0,
        "generator__architecture": "edsr",
        "generator__width": 16,
        "generator__blocks": 1,
    },
}


def slow(*values):
    """One mesh of several: the fast tests have that which splits along every axis."""
    return pytest.param(*values if isinstance(values[0], tuple | str) else (values,), marks=pytest.mark.slow)


def mesh_of(data, fsdp=1, tensor=1, batch_size=64):
    return make_mesh(dict(zip(MESH_AXES, (data, fsdp, tensor), strict=True)), batch_size)


def keys(sizes):
    return {f"mesh__{axis}": size for axis, size in zip(MESH_AXES, sizes, strict=True)}


# The same step.


def by_sgd(lab, what, **overrides):
    """A config whose optimizers' traces are the gradients after one step."""
    sgd = {"name": "momentum_sgd", "learning_rate": 0.1}
    alone = {"classification": "optimizer", "super-resolution": "generator_optimizer"}
    sections = (alone[what],) if what in alone else ("generator_optimizer", "discriminator_optimizer")
    overrides |= {f"{section}__{key}": value for section in sections for key, value in sgd.items()}
    if what in TRANSLATIONS:
        side = TRANSLATIONS[what]["translation__patch"]
        overrides |= {"data__image_size": side + 4, "data__batch_size": 8, "log__samples": 2} | TRANSLATIONS[what]
        return lab.config("image_to_image", data__flip=True, **overrides)
    overrides |= (GAMES | {EVERYTHING: lab.everything}).get(what, {"vit__rope": "naver_mixed"})
    return lab.config("gan" if "gan" in what else what, data__flip=True, **overrides)


GANS_AND_VIT = ("gan", *map(slow, ("conditional gan", EVERYTHING)), "classification")


@pytest.fixture(scope="module", params=(*GANS_AND_VIT, *map(slow, ("inpainting", "instance norm")), "super-resolution"))
def on_one(request, lab, after_steps, tmp_path_factory):
    """(what is trained, metrics, arrays) of one step on one device."""
    logged, arrays, _ = after_steps(by_sgd(lab, request.param), tmp_path_factory.mktemp("one"), 1)
    assert any("trace" in name for name in arrays)
    assert any("batch_stats" in name for name in arrays) == ("gan" in request.param)
    return request.param, logged, arrays


def assert_same(one, other, biases=0.0):
    """Losses, gradients, statistics, parameters; sums reordered. `biases`: of those that a norm cancels."""
    (logged_1, arrays_1), (logged, arrays) = one, other
    for mine, theirs in zip(logged, logged_1, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-5, abs=1e-6)
    assert arrays.keys() == arrays_1.keys()
    for name, value in arrays_1.items():
        scale = max(np.abs(value).max(), 1e-3)
        atol = max(3e-5 * scale, biases if name.endswith("/bias") else 0)
        np.testing.assert_allclose(arrays[name], value, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("sizes", [slow(8, 1, 1), slow(4, 2, 1), (2, 2, 2)])
def test_every_mesh_makes_the_step_of_one_device(lab, after_steps, on_one, tmp_path, sizes):
    what, *expected = on_one
    logged, arrays, state = after_steps(by_sgd(lab, what, **keys(sizes)), tmp_path, 1)
    assert_same(expected, (logged, arrays), biases=1e-6 if what == "instance norm" else 0.0)
    leaves = ckpt.flat(state)
    assert all(len(leaf.sharding.device_set) == 8 for leaf in leaves.values())
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves.values())
    whole = sum(leaf.nbytes for leaf in leaves.values())
    assert held < whole / sizes[1] * 1.1
    assert any("tensor" in leaf.sharding.spec for leaf in leaves.values())
    for name in [name for name in leaves if "/variables/params/" in name]:
        player, _, parameter = name.partition("/variables/params/")
        owners = (player,) if player == "discriminator" else (player, "ema")
        alike = [n for n in leaves if n.startswith(owners) and n.endswith(f"/{parameter}") and "/spectral/" not in n]
        assert len(alike) > 1, "a trace at least"
        assert {str(leaves[n].sharding.spec) for n in alike} == {str(leaves[name].sharding.spec)}, name


@pytest.mark.parametrize("on_one", GANS_AND_VIT, indirect=True)
@pytest.mark.parametrize("sizes", [(1, 1, 1), slow(2, 2, 1)])
def test_accumulated_gradients_are_those_of_the_whole_batch(lab, after_steps, on_one, tmp_path, sizes):
    what, *expected = on_one
    assert_same(expected, after_steps(by_sgd(lab, what, **keys(sizes), accumulate=4), tmp_path, 1)[:2])


def test_pieces_are_strides_and_know_their_number():
    """The number keeps their dropout apart; strides keep each device's examples where they are."""
    seen = accumulated(
        lambda scale, part, i: {"first": part[0] * scale, "by_number": i * part}, 10.0, jnp.arange(6.0), 3
    )
    assert seen["first"] == 10 * (0 + 1 + 2) / 3
    np.testing.assert_allclose(seen["by_number"], [(0 * 0 + 1 * 1 + 2 * 2) / 3, (0 * 3 + 1 * 4 + 2 * 5) / 3])


# Where things lie.


def test_initialised_already_sharded(lab, tmp_path):
    """The program that makes the state needs, on each device, its share and no copy of the whole."""
    task, _ = lab.open(lab.config(vit__width=128, vit__mlp=512, vit__depth=4))
    named = jax.eval_shape(task.init, jax.random.key(0))
    state_shardings = Shardings(mesh_of(1, 8), ()).tree(named)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    memory = jax.jit(partial(first_state, task), out_shardings=state_shardings).lower(key).compile().memory_analysis()
    whole = sum(math.prod(x.shape) * 4 for x in jax.tree.leaves(named))
    assert memory.output_size_in_bytes < 1.1 * whole / 8
    assert memory.temp_size_in_bytes < 0.5 * whole


def test_the_largest_axis_that_divides_goes_over_fsdp():
    shardings = Shardings(mesh_of(2, 4), ())
    assert tuple(shardings.sharding_of((3, 8, 12)).spec) == (None, None, "fsdp")
    assert tuple(shardings.sharding_of((3, 8, 13), ("layers", "embed", "mlp")).spec) == (None, "fsdp", None)
    assert tuple(shardings.sharding_of((7,)).spec) == (None,)
    assert tuple(shardings.sharding_of(()).spec) == ()
    assert tuple(Shardings(mesh_of(8), ()).sharding_of((8, 8)).spec) == (None, None)


def test_rules_go_by_names_and_fsdp_takes_another_axis():
    rules = parse_rules("heads: tensor; mlp:tensor ; embed : fsdp;")
    assert rules == (Rule("heads", "tensor"), Rule("mlp", "tensor"), Rule("embed", "fsdp"))
    shardings = Shardings(mesh_of(2, 2, 2), rules)

    def spec(**sizes):
        return tuple(shardings.sharding_of(tuple(sizes.values()), tuple(sizes)).spec)

    assert spec(mlp=4, heads=2, layers=8) == (None, "tensor", "fsdp"), "a mesh axis is used once: by the first rule"
    assert spec(embed=2, mlp=8) == ("fsdp", "tensor")
    assert spec(mlp=2, other=8) == ("tensor", "fsdp")
    assert tuple(shardings.sharding_of((2, 2), ("embed", "embed")).spec) == ("fsdp", None)
    assert tuple(shardings.sharding_of((4, 2), (None, "mlp")).spec) == ("fsdp", "tensor")
    both = Shardings(mesh_of(2, 2, 2), parse_rules("embed: fsdp; embed: tensor"))
    assert tuple(both.sharding_of((2, 2), ("embed", "embed")).spec) == ("fsdp", "tensor")


@pytest.mark.parametrize(
    ("start", "then"), [slow((4, 2, 1), (1, 1, 1)), slow((1, 1, 1), (2, 2, 2)), ((2, 2, 2), (1, 8, 1))]
)
def test_a_checkpoint_of_one_mesh_is_restored_on_another(lab, tmp_path, said, start, then):
    digests = []
    for number, sizes in enumerate((start, then), 1):
        run, _ = lab.prepare(lab.config(**keys(sizes)), tmp_path)
        assert run.start == number - 1
        assert all(leaf.sharding.mesh.shape["fsdp"] == sizes[1] for leaf in jax.tree.leaves(run.state))
        writer = ckpt.Checkpoints(tmp_path / "checkpoints", keep_last=2, keep_every=0)
        writer.save(number, run.state, run.meta)
        writer.wait()
        digests.append(ckpt.digest(tmp_path / "checkpoints" / str(number)))
    assert digests[0] == digests[1]
    assert any("may differ in their last bits: mesh" in line for line in said)


# What is refused.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlp tensor", "'mlp tensor': write 'NAME: MESH_AXIS"),
        ("mlp:", "write 'NAME: MESH_AXIS"),
        ("embed: fsdp; mlp: model", "in 'mlp: model': 'model' is not one of data, fsdp, tensor"),
        # Those of earlier versions.
        ("attention/qkv: tensor - -", "'attention/qkv: tensor - -': write 'NAME: MESH_AXIS"),
        ("mlp/in: tensor", "as in --config.mesh.rules='heads: tensor; mlp: tensor'"),
        ("rope_frequencies: tensor -", "write 'NAME: MESH_AXIS"),
    ],
)
def test_rules_that_are_none_are_refused(text, message):
    with pytest.raises(UserError) as refusal:
        parse_rules(text)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 3, 1), "8 devices do not divide into mesh.fsdp=3 x mesh.tensor=1: pass --config.mesh.data=2 to use 6"),
        ((0, 4, 4), "pass smaller ones"),
        ((4, 2, 2), "mesh.data=4 x mesh.fsdp=2 x mesh.tensor=2 is 16 devices, but there are 8"),
        ((5, 1, 1), "batch_size=64 does not divide over 5 devices (mesh.data x mesh.fsdp)"),
        ((5, 1, 1), "the nearest that does is --config.data.batch_size=65"),
    ],
)
def test_meshes_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(UserError) as refusal:
        mesh_of(*sizes)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"task": "gan", "mesh__tensor": 8},
            "generator.width=4 does not divide over mesh.tensor=8: --config.generator.width=8",
        ),
        ({"mesh__tensor": 4}, "vit.heads=2 does not divide over mesh.tensor=4: --config.vit.heads=4"),
        ({"mesh__tensor": 2, "vit__mlp": 33}, "vit.mlp=33 does not divide over mesh.tensor=2: --config.vit.mlp=32"),
        ({"accumulate": 3}, "accumulate=3 microbatches: --config.data.batch_size=15"),
        (
            {"accumulate": 4, "mesh__data": 8},
            "data.batch_size=16, in 4 microbatches, does not divide over 8 devices",
        ),
        ({"mesh__tensor": 2, "mesh__rules": ""}, "mesh.tensor=2, but mesh.rules shard nothing over it"),
        (
            {"mesh__tensor": 2, "mesh__rules": "head: tensor"},
            "mesh.rules: no parameter has an axis 'head'; the names of their axes: classes, embed, head_dim,",
        ),
        (
            {"mesh__tensor": 4, "mesh__rules": "classes: tensor"},
            "/head/bias [10]: classes, of 10, does not divide over mesh.tensor=4; the nearest that does is 8",
        ),
    ],
)
def test_what_does_not_divide_is_refused_with_the_nearest_that_would(lab, tmp_path, overrides, message):
    with pytest.raises(UserError) as refusal:
        lab.train(lab.config(**overrides), tmp_path)
    assert message in str(refusal.value)


def split_over_tensor(task):
    """{name: state_shardings} of what the default rules split."""
    shardings = Shardings(mesh_of(1, 1, 2), parse_rules(MESH_RULES))
    tree = ckpt.flat(shardings.tree(jax.eval_shape(task.init, jax.random.key(0))))
    return {name: tuple(x.spec) for name, x in tree.items() if "tensor" in x.spec}


def test_the_default_rules_of_a_gan_split_every_convolution_over_channels(lab):
    task, _ = lab.open(lab.config("gan", data__image_size=32))
    split = split_over_tensor(task)
    assert {name.partition("/params/")[2]: axes for name, axes in split.items() if "/params/" in name} == {
        "TransposedConvolution_0/kernel": (None, None, None, "tensor"),  # [k, k, out, in]
        "TransposedConvolution_1/kernel": (None, None, None, "tensor"),
        "TransposedConvolution_2/kernel": (None, None, None, "tensor"),
        "Convolution_0/kernel": (None, None, None, "tensor"),  # [k, k, in, out]
        "Convolution_1/kernel": (None, None, "tensor", None),
        "Convolution_2/kernel": (None, None, "tensor", None),
    }


def test_the_default_rules_of_a_vit_split_what_they_name(lab):
    task, _ = lab.open(lab.config(vit__rope="naver_mixed"))
    split = split_over_tensor(task)
    assert {name.split("/encoder/")[-1]: axes for name, axes in split.items()} == {
        "attention/qkv/kernel": (None, None, "tensor", None, None),  # [L, D, K, 3, Dh]
        "attention/qkv/bias": (None, "tensor", None, None),
        "attention/rope_frequencies": (None, None, "tensor", None),  # [L, 2, K, Dh/2]
        "attention/out/kernel": (None, "tensor", None, None),  # [L, K, Dh, D]
        "mlp/in/kernel": (None, None, "tensor"),
        "mlp/in/bias": (None, "tensor"),
        "mlp/out/kernel": (None, "tensor", None),
    }


def test_nearest_multiple_is_at_least_one():
    assert [nearest_multiple(n, 8) for n in (1, 11, 13, 64)] == [8, 8, 16, 64]
