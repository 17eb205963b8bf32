"""benchmarks/image_to_image_step.py: both sides have the same nets, and take the same steps from the same weights."""

import importlib
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.experiment import described, make_task
from gormley_vision.training.task import first_state

torch = pytest.importorskip("torch")

BATCH = 2
STILL = {"data__batch_size": BATCH, "data__flip": False, "translation__patch": 32, "data__image_size": 32}
SMALL = {
    "pix2pix_4": STILL
    | {"generator__width": 4, "generator__levels": 5, "generator__dropout": 0.0, "discriminator__width": 4},
    "edsr_16": STILL | {"generator__width": 4, "generator__blocks": 2, "translation__turns": False},
}


@pytest.fixture(scope="module")
def benchmarks():
    """`import_module` with benchmarks/ on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module


def made(config):
    return make_task(config.to_dict(), described(config, (), 64))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The nets with BatchNorm less 2 numbers for each normalised channel, plus biases of all layers but the last.
        (
            "pix2pix_1",
            {"generator": 41_828_995 - 2 * 3904 + 3904 + 64 + 512, "discriminator": 2_768_705 - 2 * 896 + 896},
        ),
        ("edsr_16", {"generator": 121_987}),
    ],
)
def test_both_sides_have_the_published_numbers_of_parameters(benchmarks, name, expected):
    config = benchmarks("image_to_image_step").configured(name)
    state = jax.eval_shape(made(config).init, jax.random.key(0))
    with torch.device("meta"):
        peer = benchmarks("pix2pix_peer").peer(config)
    for player, count in expected.items():
        assert sum(x.size for x in jax.tree.leaves(getattr(state, player).variables["params"])) == count
        assert sum(p.numel() for p in getattr(peer, player).parameters()) == count
    assert (peer.discriminator is None) == ("discriminator" not in expected)


def copy(net, params):
    """Copy our parameters into a net whose layers of each kind come in the order of our names' numbers."""
    kinds = {"Convolution": torch.nn.Conv2d, "TransposedConvolution": torch.nn.ConvTranspose2d}
    copied = 0
    for kind, module in kinds.items():
        for i, layer in enumerate(layer for layer in net.modules() if isinstance(layer, module)):
            ours = jax.tree.map(np.array, params[f"{kind}_{i}"])
            for theirs, value in ((layer.weight, ours["kernel"].transpose(3, 2, 0, 1)), (layer.bias, ours["bias"])):
                assert theirs.shape == value.shape
                theirs.data.copy_(torch.from_numpy(value))
            copied += 1
    assert copied == len(params)


@pytest.mark.parametrize("name", SMALL)
def test_two_steps_from_the_same_weights_have_the_same_losses(benchmarks, name):
    """Those of the second step depend on both players' updates."""
    program, peers = benchmarks("image_to_image_step"), benchmarks("pix2pix_peer")
    config = program.configured(name, **SMALL[name])
    task, peer = made(config), peers.peer(config)
    pictures = {key: x[:BATCH] for key, x in program.made_up(config).items()}
    key = jax.random.key(0)
    state = nn.unbox(jax.jit(lambda key: first_state(task, key))(key))
    for net, ours in ((peer.generator, state.generator), (peer.discriminator, state.discriminator)):
        if net is not None:
            copy(net, ours.variables["params"])
    held = [torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in pictures.values()]
    given, target = (peers.halved(held[0]), held[0]) if name == "edsr_16" else (held[1], held[0])
    step, ours, theirs = jax.jit(task.train_step), [], []
    for _ in range(2):
        state, logged, _ = step(state, {name: jnp.asarray(x)[None] for name, x in pictures.items()}, key)
        theirs.append({name: float(x.detach()) for name, x in peer.step(given, target).items()})
        ours.append({name: float(logged[name]) for name in theirs[-1]})
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-5)
        assert len(mine) == (1 if peer.discriminator is None else 3)
    assert ours[0] != pytest.approx(ours[1], rel=1e-4)
