"""Models of text, and masked patches, on eight devices: step and evaluation of one; text's vocabulary over `tensor`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gormley_vision.config import default_config
from gormley_vision.data.features import Description
from gormley_vision.experiment import described, make_task
from gormley_vision.mesh_rules import MESH_AXES, parse_rules
from gormley_vision.training.checkpoints import flat
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import first_state

SMALL = {"data.batch_size": 16, "optimizer.name": "momentum_sgd", "optimizer.learning_rate": 0.1}
TEXT = {
    "data.source": "text",
    "data.context": 8,
    "transformer.width": 32,
    "transformer.depth": 2,
    "transformer.mlp": 64,
    "transformer.heads": 4,
}
PATCHES = {
    "data.image_size": 16,
    "vit.width": 32,
    "vit.depth": 2,
    "vit.mlp": 64,
    "vit.heads": 4,
    "masked_patches.normalised": True,
}
MAE = {
    "masked_patches.method": "mae",
    "masked_patches.decoder_width": 16,
    "masked_patches.decoder_heads": 4,
    "masked_patches.ratio": 0.75,
}
NETS = {
    "learned, tied": ("language_modeling", {}),
    "Llama": (
        "language_modeling",
        {
            "transformer.position": "none",
            "transformer.rope": "llama",
            "transformer.kv_heads": 2,
            "transformer.activation": "swiglu",
            "transformer.norm": "rms",
            "transformer.bias": False,
            "transformer.scan": True,
            "language_modeling.tied": False,
            "data.packing": True,
            "accumulate": 2,
        },
    ),
    "encoder": (
        "masked_language_modeling",
        {"transformer.qk_norm": True, "mesh.rules": "heads: tensor; mlp: tensor"},  # of 258 tokens
    ),
    "SimMIM": ("masked_patches", {}),
    "MAE": ("masked_patches", MAE),
}


def stepped(kind, changes, sizes):
    """(losses in training and evaluation, {name: array} of the state, its shardings) after one step on a mesh."""
    config = default_config(kind)
    config.update_from_flattened_dict(SMALL | (PATCHES if kind == "masked_patches" else TEXT) | changes)
    data: Description = described(config.to_dict(), (), 100)
    task, key = make_task(config.to_dict(), data), jax.random.key(0)
    count = int(np.prod(sizes))
    mesh = make_mesh(dict(zip(MESH_AXES, sizes, strict=True)), 16, config.accumulate, jax.devices()[:count])
    shardings = Shardings(mesh, parse_rules(config.mesh.rules))
    of_state = shardings.tree(jax.eval_shape(task.init, key))
    state = jax.jit(partial(first_state, task), out_shardings=of_state)(key)
    rng = np.random.default_rng(0)
    batch = {
        name: rng.integers(0, 200, (1, 16, *f.shape)).astype(f.dtype)
        if f.kind in ("tokens", "image")
        else np.ones((1, 16, *f.shape), f.dtype)
        for name, f in data.features.items()
    }
    if "segments" in batch:
        batch["segments"] = (np.arange(9) > 4).astype(np.int32) + np.zeros((1, 16, 1), np.int32)
        batch["positions"] = np.where(np.arange(9) > 4, np.arange(9) - 5, np.arange(9)) + np.zeros((1, 16, 1), int)
    examples = {name: x[0] for name, x in batch.items()} | {"mask": np.arange(16) < 13}
    examples = {name: jax.device_put(jnp.asarray(x), shardings.examples) for name, x in examples.items()}
    batch = {name: jax.device_put(jnp.asarray(x), shardings.batch) for name, x in batch.items()}
    step = shardings.jit(task.train_step, out_shardings=(of_state, *[shardings.replicated] * 2))
    state, metrics, _ = step(state, batch, key)
    sums = shardings.jit(task.eval_step, out_shardings=shardings.replicated)(state, examples)
    losses = float(metrics["loss/train"]), float(sums["loss"] / sums["count"])
    return losses, {n: np.asarray(x) for n, x in flat(state).items()}, flat(of_state)


SLOW = [pytest.param(net, marks=pytest.mark.slow) for net in NETS if net != "learned, tied"]


@pytest.mark.parametrize("net", ["learned, tied", *SLOW])
def test_eight_devices_take_the_step_of_one(net):
    kind, changes = NETS[net]
    losses, arrays, _ = stepped(kind, changes, (1, 1, 1))
    for sizes in ((2, 2, 2),) if net == "learned, tied" else ((2, 2, 2), (1, 2, 4)):
        sharded_losses, sharded, of_state = stepped(kind, changes, sizes)
        np.testing.assert_allclose(sharded_losses, losses, rtol=1e-5)
        assert sharded.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_allclose(sharded[name], array, atol=2e-5, rtol=1e-4, err_msg=name)
        if kind == "language_modeling":
            table = of_state["network/variables/params/token_embedding"].spec
            assert table == PartitionSpec("tensor", "fsdp")
