"""Every kind of net on four meshes: the step of one device. With ALL_MESHES=1, else skipped: a quarter of an hour.

`test_sharding.py` is the part that always runs. This is the whole: a partitioner's mistake in one kind of net shows in
no other.
"""

import os
from functools import partial

import jax
import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("ALL_MESHES" not in os.environ, reason="ALL_MESHES=1: a quarter of an hour"),
]

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]
GANS = [
    {"discriminator.architecture": "patchgan", "discriminator.receptive_field": 34, "data.image_size": 32},
    {"discriminator.architecture": "patchgan", "discriminator.receptive_field": 1},
    {"generator.kernel_size": 5, "discriminator.kernel_size": 5, "gan.conditional": True, "data.channels": 1},
    {"gan.discriminator_steps": 2, "gan.shared_fakes": True, "gan.simultaneous": True, "data.flip": True},
    {"accumulate": 2},
    {"data.image_size": 64},
]
VITS = [
    {"vit.scan": True},
    {"vit.scan": True, "vit.remat": True, "accumulate": 2},
    {"vit.parallel": True, "vit.norm": "rms", "vit.qk_norm": True, "vit.qkv_bias": False},
    {"vit.pooling": "map", "vit.registers": 2, "vit.representation": 16, "vit.layer_scale": 0.1},
    {"vit.pooling": "gap", "vit.position": "sincos2d", "vit.rope": "llama"},
    {"vit.rope": "naver_axial", "vit.dropout": 0.1, "vit.stochastic_depth": 0.2},
    {"vit.rope": "dinov3", "classification.shift": 2},
    {"vit.rope": "timm", "data.placement": "stream"},
    {"data.flip": True, "classification.crop_min_area": 0.1, "classification.randaugment_operations": 2},
    {"classification.mixup": 0.2, "classification.cutmix": 1.0, "classification.label_smoothing": 0.1},
    {"optimizer.name": "muon"},
    {"optimizer.clip_norm": 0.1, "optimizer.layer_decay": 0.7, "optimizer.weight_decay": 0.1},
]
SGD = {"name": "momentum_sgd", "learning_rate": 0.1}


def config_of(lab, task, change, sizes):
    flat = {"data.channels": 3, "data.batch_size": 32}
    if task == "gan":
        flat |= {"generator.width": 8, "discriminator.width": 8}
        flat |= {f"{player}_optimizer.{key}": x for player in ("generator", "discriminator") for key, x in SGD.items()}
    else:
        flat |= {"vit.patch_size": 4, "vit.heads": 4, "vit.width": 32, "vit.mlp": 64}
        flat |= {f"optimizer.{key}": x for key, x in SGD.items()}
    flat |= dict(zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), sizes, strict=True))
    return lab.config(task, **{key.replace(".", "__"): x for key, x in (flat | change).items()})


@pytest.mark.parametrize(
    ("task", "change"),
    [("gan", change) for change in GANS] + [("classification", change) for change in VITS],
    ids=lambda x: ", ".join(f"{key}={value}" for key, value in x.items()) if isinstance(x, dict) else x,
)
def test_every_mesh_makes_the_step_of_one_device(lab, after_steps, tmp_path, task, change):
    """Up to 1e-4, and up to what rounding does: in a large picture some ReLU's input is within it of the kink."""
    alone = config_of(lab, task, change, (1, 1, 1))
    logged, arrays, _ = after_steps(alone, tmp_path / "one", 1)
    spread, logged_spread = dict.fromkeys(arrays, 0.0), dict.fromkeys(logged[0], 0.0)
    for seed in range(4):
        logged_near, near, _ = after_steps(alone, tmp_path / f"near{seed}", 1, partial(rounded, seed))
        for name in arrays:
            spread[name] = max(spread[name], np.abs(near[name] - arrays[name]).max())
        for name in logged[0]:
            logged_spread[name] = max(logged_spread[name], abs(logged_near[0][name] - logged[0][name]))
    wide = {name: by for name, by in spread.items() if by > 0.05 * max(np.abs(arrays[name]).max(), 1e-3)}
    assert not wide  # else nothing below could fail
    for sizes in MESHES:
        folder = tmp_path / "x".join(map(str, sizes))
        logged_here, arrays_here, _ = after_steps(config_of(lab, task, change, sizes), folder, 1)
        for name, value in logged[0].items():
            within = 1e-5 + 1e-4 * abs(value) + 2 * logged_spread[name]
            assert logged_here[0][name] == pytest.approx(value, rel=0, abs=within), (sizes, name)
        for name, value in arrays.items():
            within = 1e-4 * max(np.abs(value).max(), 1e-3) + 2 * spread[name]
            np.testing.assert_allclose(arrays_here[name], value, rtol=0, atol=within, err_msg=f"{sizes} {name}")


def rounded(seed, state):
    """Return the state with each number changed by up to half a unit in its last place."""
    draw = np.random.default_rng(seed)

    def near(x):
        return (x * (1 + 6e-8 * draw.uniform(-1, 1, x.shape))).astype(x.dtype) if x.dtype == np.float32 else x

    return jax.tree.map(lambda x: near(np.array(x)), state)
