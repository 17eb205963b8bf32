"""Logits and gradients of timm's networks with the same random weights, float32, images higher than wide."""

import sys
import warnings
from functools import partial
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.models.vit import ViT

torch = pytest.importorskip("torch")
pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")

BATCH, IMAGE = 3, (24, 16)  # high, wide: 3 x 2 patches
SIZE = {"width": 32, "depth": 2, "mlp": 48, "heads": 2, "patch_size": 8, "classes": 5}
THEIRS = {"img_size": IMAGE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5}


@pytest.fixture(scope="module")
def timm():
    """timm's `VisionTransformer` and `Eva`. Only pictures need torchvision, which is not there: a stand-in will do."""
    absent = ["", ".ops", ".ops.misc", ".models", ".models.feature_extraction", ".transforms", ".datasets", ".utils"]
    names = [f"torchvision{name}" for name in [*absent, ".transforms.functional"]]
    names = [name for name in names if name not in sys.modules]
    for name in names:
        sys.modules[name] = mock.MagicMock()
    sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = torch.nn.BatchNorm2d
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models = pytest.importorskip("timm.models")
    finally:
        for name in names:
            del sys.modules[name]
    return models


def randomised(network):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(0, 0.3)
            if ("norm" in name and name.endswith("weight")) or "gamma" in name:
                parameter.add_(1)
    return network.eval()


def dense(state, name):
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


def norm(state, name):
    return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}


def layer(state, i, rope_mixed):
    of = {name.removeprefix(f"blocks.{i}."): x for name, x in state.items() if name.startswith(f"blocks.{i}.")}
    qkv, bias = of["attn.qkv.weight"].reshape(3, 2, 16, 32), of["attn.qkv.bias"].reshape(3, 2, 16)
    out = dense(of, "attn.proj")
    attention = {
        "qkv": {"kernel": qkv.transpose(3, 1, 0, 2), "bias": bias.transpose(1, 0, 2)},
        "out": {"kernel": out["kernel"].reshape(2, 16, 32), "bias": out["bias"]},
    }
    if "attn.q_norm.weight" in of:
        attention |= {"query_norm": norm(of, "attn.q_norm"), "key_norm": norm(of, "attn.k_norm")}
    if rope_mixed:
        attention["rope_frequencies"] = state["rope.freqs"][:, i]
    params = {"attention": attention, "mlp": {"in": dense(of, "mlp.fc1"), "out": dense(of, "mlp.fc2")}}
    for n in "12":
        params[f"norm_{n}"] = norm(of, f"norm{n}")
        for name in (f"ls{n}.gamma", f"gamma_{n}"):
            if name in of:
                params[f"layer_scale_{n}"] = of[name]
    return params


def converted(network):
    """Their parameters under our names."""
    state = {name: parameter.detach().numpy() for name, parameter in network.named_parameters()}
    layers = [layer(state, i, "rope.freqs" in state) for i in range(2)]
    params = {
        "patch_embedding": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "patch_bias": state["patch_embed.proj.bias"],
        "encoder": jax.tree.map(lambda *leaves: np.stack(leaves), *layers),
        "norm": norm(state, "norm"),
        "head": dense(state, "head"),
    }
    if "cls_token" in state:
        params["class_token"] = state["cls_token"]
    if "reg_token" in state:
        params["registers"] = state["reg_token"]
    if "pos_embed" in state:
        positions = state["pos_embed"]
        if network.no_embed_class and "class_token" in params:
            positions = np.pad(positions, ((0, 0), (1, 0), (0, 0)))
        params["position_embedding"] = positions
    if "attn_pool.latent" in state:
        query, kv, out = (dense(state, f"attn_pool.{name}") for name in ("q", "kv", "proj"))
        kernels, biases = kv["kernel"].reshape(32, 2, 2, 16), kv["bias"].reshape(2, 2, 16)
        params["pooling_head"] = {
            "probe": state["attn_pool.latent"],
            "query": {"kernel": query["kernel"].reshape(32, 2, 16), "bias": query["bias"].reshape(2, 16)},
            "key": {"kernel": kernels[:, 0], "bias": biases[0]},
            "value": {"kernel": kernels[:, 1], "bias": biases[1]},
            "out": {"kernel": out["kernel"].reshape(2, 16, 32), "bias": out["bias"]},
            "norm": norm(state, "attn_pool.norm"),
            "mlp": {"in": dense(state, "attn_pool.mlp.fc1"), "out": dense(state, "attn_pool.mlp.fc2")},
        }
    return params


def agree(network, module):
    params = jax.tree.map(jnp.asarray, converted(randomised(network)))
    images = np.random.default_rng(0).uniform(-1, 1, (BATCH, *IMAGE, 3)).astype(np.float32)
    shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), images))["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)  # nothing left over, nothing missing

    @jax.jit
    def ours(images):
        logits, pullback = jax.vjp(partial(module.apply, {"params": params}), images)
        return logits, pullback(jnp.cos(logits))[0]

    theirs = torch.from_numpy(images.transpose(0, 3, 1, 2)).requires_grad_()
    logits = network(theirs)
    logits.backward(torch.cos(logits.detach()))
    expected = logits.detach().numpy(), theirs.grad.numpy().transpose(0, 2, 3, 1)
    for given, wanted in zip(ours(images), expected, strict=True):
        largest = np.abs(wanted).max()
        assert largest > 0.1
        np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        ({"init_values": 1.0, "qk_norm": True}, {"layer_scale": 1.0, "qk_norm": True}),
        ({"reg_tokens": 3, "no_embed_class": True, "act_layer": "gelu_tanh"}, {"registers": 3, "gelu": "tanh"}),
        (
            {"global_pool": "avg", "class_token": False, "fc_norm": False, "reg_tokens": 2, "no_embed_class": True},
            {"pooling": "gap", "registers": 2, "scan": False},
        ),
        ({"global_pool": "map", "class_token": False}, {"pooling": "map"}),
    ],
    ids=["cls", "LayerScale, QK-norm", "registers, tanh", "gap, registers", "map"],
)
def test_timm(timm, theirs, ours):
    network = timm.vision_transformer.VisionTransformer(**THEIRS, num_classes=5, **theirs)
    agree(network, ViT(**{**SIZE, "gelu": "erf", "scan": True, **ours}))


@pytest.mark.parametrize(
    ("preset", "theirs", "ours"),
    [
        ("naver_axial", {"rope_temperature": 100.0, "rope_grid_indexing": "xy"}, {}),
        ("naver_mixed", {"rope_temperature": 10.0, "rope_grid_indexing": "xy", "rope_type": "mixed"}, {}),
        ("timm", {"num_reg_tokens": 2}, {"registers": 2}),
        ("dinov3", {"rope_temperature": 100.0, "rope_type": "dinov3", "rope_rotate_half": True}, {}),
    ],
)
def test_timm_with_rope(timm, preset, theirs, ours):
    """As `vit_*_patch16_rope_224`, `_rope_mixed_224`, EVA-02's positions, and `vit_*_patch16_dinov3`."""
    options = {"attn_type": "rope", "qkv_bias": True, "init_values": 1.0, "global_pool": "token"}
    rotary = {"use_abs_pos_emb": False, "use_rot_pos_emb": True}
    network = timm.eva.Eva(**THEIRS, num_classes=5, **options, **rotary, **theirs)
    agree(network, ViT(**SIZE, gelu="erf", scan=True, position="none", rope=preset, layer_scale=1.0, **ours))
