"""What is drawn of a Vision Transformer is what the network computes; and the script draws it."""

import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from gormley_vision import inspection
from gormley_vision.command_line import load_config_file
from gormley_vision.errors import UserError
from gormley_vision.models.vit import ViT
from gormley_vision.run import run
from gormley_vision.sampling import Restored

ROOT = Path(__file__).parents[1]
GRID = (3, 4)
TINY = {"width": 16, "depth": 3, "mlp": 24, "heads": 2, "patch_size": 2, "classes": 5}
NETS = {
    "cls, learned": {},
    "map, registers, parallel": {"pooling": "map", "registers": 2, "parallel": True, "norm": "rms", "scan": True},
    "gap, mixed": {"pooling": "gap", "position": "none", "rope": "naver_mixed", "stochastic_depth": 0.3},
    "mixed, ntk": {"rope": "naver_mixed", "rope_scaling": "ntk", "trained_grid": 2, "layer_scale": 0.1},
    "cls, axial, qk norm": {"rope": "naver_axial", "qk_norm": True, "registers": 1, "dropout": 0.2},
    "line, half": {"rope": "llama", "position": "sincos2d", "qkv_bias": False},
    "dinov3": {"rope": "dinov3", "pooling": "map", "remat": True},
}


def tiny(options):
    """A network with parameters of no special values, and two images of 3 x 4 patches."""
    model = ViT(**TINY, **options)
    images = jax.random.uniform(jax.random.key(1), (2, 6, 8, 3), minval=-1)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), images))["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return model, jax.tree.unflatten(tree, leaves), images


REPEATS = "cls, learned", "gap, mixed", "line, half"  # each of their options is in another, too
PARAMS = [pytest.param(name, marks=pytest.mark.slow if name in REPEATS else ()) for name in NETS]


@pytest.fixture(scope="module", params=PARAMS)
def net(request):
    """(network, parameters, images, its maps of the first and the last layer)."""
    net = tiny(NETS[request.param])
    return *net, inspection.attention_maps(*net, [2, 0])


def test_maps_and_tokens_are_those_of_the_whole_network(net):
    model, params, images, maps = net
    options = {"mutable": ["maps", "intermediates"], "capture_intermediates": lambda module, _: module.name == "norm"}
    _, found = jax.jit(lambda params: model.apply({"params": params}, images, **options))(params)
    expected = found["maps"]["encoder"]["attention"]["weights"][0]  # [L, B, K, N, N]
    assert sorted(maps) == [0, 2]
    for layer, weights in maps.items():
        np.testing.assert_allclose(weights, expected[layer], atol=2e-6)
    tokens, recorded = inspection.encode(model, params, images, [1])
    assert list(recorded) == [1]
    normed = type_of_norm(model)(epsilon=1e-6).apply({"params": params["norm"]}, tokens)
    np.testing.assert_allclose(normed, found["intermediates"]["norm"]["__call__"][0], atol=5e-5)


def type_of_norm(model):
    import flax.linen as nn

    return nn.RMSNorm if model.norm == "rms" else nn.LayerNorm


def test_the_softmax_of_the_scores_is_the_map(net):
    model, params, images, maps = net
    scores = inspection.attention_scores(model, params, images, [0, 2])
    for layer, weights in maps.items():
        np.testing.assert_allclose(jax.nn.softmax(scores[layer], axis=-1), weights, atol=5e-6)


def test_a_layer_that_is_not_there_is_refused():
    model, params, images = tiny({})
    with pytest.raises(ValueError, match=r"layers \[-1, 3\] .* 0 \.\.\. 2"):
        inspection.attention_maps(model, params, images, [3, 0, -1])


def test_rollout_is_the_product_of_stochastic_matrices():
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.ones(5), (3, 2, 4, 5))  # [L, B, K, N, N]
    rolled = inspection.attention_rollout(maps)
    assert rolled.shape == (2, 5, 5)
    np.testing.assert_allclose(rolled.sum(-1), 1)
    expected = np.eye(5)
    for layer in maps[:, 1]:
        expected = (0.5 * layer.mean(0) + 0.5 * np.eye(5)) @ expected
    np.testing.assert_allclose(rolled[1], expected)
    identity = np.broadcast_to(np.eye(5), maps.shape)
    np.testing.assert_array_equal(inspection.attention_rollout(identity), np.broadcast_to(np.eye(5), (2, 5, 5)))


def test_read_out_takes_the_rows_that_the_head_reads():
    rows = np.arange(2 * 14 * 14, dtype=float).reshape(2, 14, 14)  # two tokens before 3 x 4 patches
    for pooling, expected in (("cls", rows[:, 0]), ("gap", rows[:, 2:].mean(1)), ("map", rows.mean(1))):
        np.testing.assert_allclose(
            inspection.read_out(rows, pooling, 2, GRID), expected[:, 2:].reshape(2, *GRID), err_msg=pooling
        )


def test_similarity_of_positions_is_a_cosine():
    table = np.random.default_rng(0).normal(size=(12, 7))
    similarity = inspection.position_similarity(table)
    np.testing.assert_allclose(np.diag(similarity), 1)
    np.testing.assert_allclose(similarity, similarity.T)
    np.testing.assert_allclose(inspection.position_similarity(3 * table), similarity)
    model, params, _ = tiny({"registers": 2})
    learned = inspection.learned_positions(params, GRID)
    np.testing.assert_array_equal(learned, params["position_embedding"][0, 1:])
    assert model.num_prefix_tokens == 3


@pytest.mark.parametrize("preset", ["roformer", "naver_axial", "naver_mixed", "timm", "dinov3"])
def test_the_rotations_own_similarity_is_even_and_one_at_no_offset(preset):
    model, params, _ = tiny({"rope": preset, "registers": 1})
    angles = np.moveaxis(inspection.rotation_angles(model, params, GRID), 2, 1)[:, :, 2:]  # [L, K or 1, h*w, Dh/2]
    similarity = inspection.rope_similarity(angles, GRID)
    assert similarity.shape == (3, 2 if preset == "naver_mixed" else 1, 5, 7)
    np.testing.assert_allclose(similarity[..., 2, 3], 1)
    np.testing.assert_allclose(similarity, similarity[..., ::-1, ::-1], atol=1e-5)
    # Of every pair of patches, not only of those that it is computed from: a key 2 below and 1 to the left.
    for query, key in ((1, 8), (3, 10)):
        score = np.cos(angles[:, :, key] - angles[:, :, query]).mean(-1)
        np.testing.assert_allclose(similarity[..., 2 + 2, 3 - 1], score, atol=1e-5)


def test_means_by_offset_of_scores_that_are_functions_of_it():
    kernel = np.random.default_rng(0).normal(size=(2, 5, 7))
    y, x = np.divmod(np.arange(12), 4)
    scores = kernel[:, y[None] - y[:, None] + 2, x[None] - x[:, None] + 3]  # [2, query, key]
    np.testing.assert_allclose(inspection.mean_by_offset(scores, GRID), kernel)


def test_principal_filters_rebuild_filters_of_low_rank():
    rng = np.random.default_rng(0)
    basis, amounts = rng.normal(size=(2, 3, 3, 2)), rng.normal(size=(2, 9))
    kernel = np.einsum("npqc,nd->pqcd", basis, amounts - amounts.mean(1, keepdims=True))
    components, shares = inspection.principal_filters(kernel, 5)
    assert components.shape == (5, 3, 3, 2)
    np.testing.assert_allclose(shares[:2].sum(), 1)
    np.testing.assert_allclose(np.linalg.norm(components.reshape(5, -1), axis=1), 1)
    two = components[:2].reshape(2, -1)
    flat = kernel.reshape(-1, 9)
    np.testing.assert_allclose(two.T @ (two @ flat), flat, atol=1e-12)


def test_only_classifiers_have_attention():
    with pytest.raises(UserError, match="a run of gan has no attention"):
        inspection.vision_transformer_of(Restored({"task": "gan"}, 0, (), None, None))


# ---------------------------------------------------------------------------------------------------------
# The script.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Tiny runs: one with learned positions and [CLS], one with learned rotations and attention pooling."""
    root = tmp_path_factory.mktemp("inspection")
    changes = {
        "learned": {},
        "mixed": {"rope": "naver_mixed", "position": "none", "pooling": "map"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        for name, change in changes.items():
            config = load_config_file(f"{ROOT}/configs/vit_mnist.py:smoke")
            config.mesh.data = 1
            config.vit.update(change)
            assert run(config.to_dict(), root / name) == 0
        yield root


def visualize(root, name, *words):
    command = [sys.executable, "-W", "error", f"{ROOT}/scripts/visualize.py", f"--workdir={root / name}", *words]
    environment = {**os.environ, "XDG_CACHE_HOME": str(root / "cache")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_the_script_draws_and_says_what_it_leaves_out(trained):
    pytest.importorskip("matplotlib")
    done = visualize(trained, "learned", "--images=2")
    assert done.returncode == 0, done.stderr
    drawn = {"attention.png", "heads.png", "rollout.png", "positions.png", "filters.png"}
    check_pictures(trained / "learned" / "pictures", drawn, done.stdout)
    assert "no rope_offsets.png: vit.rope=none" in done.stdout

    out = trained / "elsewhere"
    done = visualize(trained, "mixed", f"--out={out}", "--layers=-1", "--heads=1", "--split=train", "--images=3")
    assert done.returncode == 0, done.stderr
    check_pictures(out, {"attention.png", "heads.png", "rollout.png", "rope_offsets.png", "filters.png"}, done.stdout)
    assert "no positions.png: positions are not learned, vit.position=none" in done.stdout


def check_pictures(folder, names, said):
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        assert f"{folder / name}\n" in said
        pixels = np.asarray(Image.open(folder / name).convert("L"))
        assert pixels.shape > (100, 100)
        assert pixels.std() > 5, name


@pytest.mark.slow
def test_the_script_refuses_what_is_not_there(trained):
    pytest.importorskip("matplotlib")
    done = visualize(trained, "learned", "--heads=9")
    assert done.returncode == 2
    assert "--heads=9: this network has 0 to" in done.stderr
