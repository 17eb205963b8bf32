"""Laws that hold whatever the weights: order of patches, layers however they are run, rotation."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers import rope
from gormley_vision.layers.blocks import Block, Rotation
from gormley_vision.models.vit import ViT, to_patches

IMAGE = (8, 12, 3)  # high, wide, channels: 2 x 3 patches
GRID = (2, 3)


def tiny(**options):
    return ViT(**{"width": 16, "depth": 2, "mlp": 24, "heads": 2, "patch_size": 4, "classes": 5, **options})


def images(seed, batch=2):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (batch, *IMAGE)), jnp.float32)


def weights(module, seed=0):
    """Every parameter random, the head's and LayerScale's too."""
    given = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), images(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype), given)


def run(module, variables, x, **options):
    return jax.jit(partial(module.apply, **options))(variables, x)


# ---------------------------------------------------------------------------------------------------------
# Parameters.


def test_initial_values():
    module = tiny(width=64, classes=7, head_bias=-6.9, scan=True, remat=True)
    logits, variables = nn.unbox(jax.jit(module.init_with_output)(jax.random.key(1), images(1)))
    unrolled = nn.unbox(jax.jit(module.clone(scan=False, remat=False).init)(jax.random.key(1), images(1)))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), variables, unrolled)
    params = variables["params"]
    assert set(variables) == {"params"}
    np.testing.assert_array_equal(logits, np.full((2, 7), -6.9, np.float32))
    assert not params["class_token"].any()
    assert params["position_embedding"].shape == (1, 7, 64)
    np.testing.assert_allclose(params["position_embedding"].std(), 0.02, rtol=0.1)
    np.testing.assert_allclose(params["patch_embedding"].std(), (4 * 4 * 3) ** -0.5, rtol=0.05)
    for kernel in (params["encoder"]["attention"]["qkv"]["kernel"], params["encoder"]["mlp"]["in"]["kernel"]):
        assert kernel.shape[0] == 2
        assert np.abs(kernel[0] - kernel[1]).mean() > 0.02  # each layer draws its own
        np.testing.assert_allclose(kernel.std(axis=tuple(range(1, kernel.ndim))), kernel.std(), rtol=0.05)


# ---------------------------------------------------------------------------------------------------------
# Patches.


def test_patches_are_in_reading_order():
    x = np.random.default_rng(0).normal(size=(2, 6, 9, 2))
    cut = to_patches(jnp.asarray(x, jnp.float32), 3)
    assert cut.shape == (2, 6, 18)
    for b in range(2):
        for token in range(6):
            pixels = []
            for i in range(3):
                for j in range(3):
                    pixels.extend(x[b, 3 * (token // 3) + i, 3 * (token % 3) + j])
            np.testing.assert_allclose(cut[b, token], pixels, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 10, 3), (1, 10, 8, 3), (1, 3, 3, 3)])
def test_images_that_do_not_divide_into_patches_are_refused(shape):
    with pytest.raises(ValueError, match=f"images of {shape[1]}x{shape[2]} pixels .* 4x4 patches"):
        jax.eval_shape(tiny().init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize("pooling", ["cls", "gap", "map"])
@pytest.mark.parametrize(
    ("position", "preset"),
    [("learned", "none"), ("sincos2d", "none"), ("none", "none"), *(("none", preset) for preset in rope.PRESETS)],
)
def test_every_combination_takes_rectangular_images(pooling, position, preset):
    module = tiny(pooling=pooling, position=position, rope=preset, registers=2, depth=1)
    logits, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), images(0))
    assert logits.shape == (2, 5)
    assert logits.dtype == jnp.float32
    params = variables["params"]
    assert ("class_token" in params) == (pooling == "cls")
    assert ("position_embedding" in params) == (position == "learned")
    assert ("rope_frequencies" in params["encoder"]["attention"]) == (preset == "naver_mixed")


def permuted(x):
    """The same patches at other places."""
    patches = np.asarray(x).reshape(2, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 4, 4, 3)
    patches = patches[:, [4, 2, 0, 5, 1, 3]].reshape(2, 2, 3, 4, 4, 3)
    return jnp.asarray(patches.transpose(0, 1, 3, 2, 4, 5).reshape(2, *IMAGE))


@pytest.mark.parametrize(
    ("options", "blind"),
    [
        ({"position": "none", "pooling": "gap"}, True),
        ({"position": "none", "pooling": "map", "registers": 2, "parallel": True}, True),
        ({"position": "none", "pooling": "cls", "registers": 1, "qk_norm": True}, True),
        ({"position": "learned", "pooling": "gap"}, False),
        ({"position": "sincos2d", "pooling": "gap"}, False),
        *(
            ({"position": "none", "pooling": "gap", "rope": preset}, False)
            for preset in ("llama", "naver_mixed", "dinov3")
        ),
    ],
)
def test_without_positions_the_order_of_patches_is_unseen(options, blind):
    module = tiny(**options, depth=1)
    variables, x = weights(module), images(2)
    forward = jax.jit(module.apply)
    change = np.abs(forward(variables, x) - forward(variables, permuted(x))).max()
    assert change < 1e-5 if blind else change > 1e-3


def test_registers_and_class_are_before_the_patches_and_not_in_the_mean():
    x = images(3)
    plain, more = tiny(pooling="gap", classes=0, depth=1), tiny(pooling="gap", classes=0, depth=1, registers=2)
    variables = weights(more, 1)
    # Registers to which nobody attends, and that are not averaged, are not there: values and the rest as without them.
    params = {name: leaf for name, leaf in variables["params"].items() if name != "registers"}
    params["encoder"] = jax.tree.map(lambda leaf: leaf, params["encoder"])
    params["encoder"]["attention"]["out"] = jax.tree.map(jnp.zeros_like, params["encoder"]["attention"]["out"])
    of_more = run(more, {"params": params | {"registers": variables["params"]["registers"]}}, x)
    np.testing.assert_allclose(of_more, run(plain, {"params": params}, x), atol=1e-6)
    assert np.abs(of_more).max() > 0.1


# ---------------------------------------------------------------------------------------------------------
# Layers: as written by hand, and the same however they are run.


def test_layers_are_applied_in_the_order_of_their_stack():
    module = tiny(depth=3, pooling="gap", position="none", rope="naver_mixed", classes=0)
    variables, x = weights(module, 2), images(4)
    p = variables["params"]

    def by_hand(p, x):
        y = to_patches(x, 4) @ p["patch_embedding"].reshape(-1, 16) + p["patch_bias"][None, None]
        for i in range(3):
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], p["encoder"])
            y, _ = Block(**module.block_options(GRID)).apply(
                {"params": layer}, y, 0.0, Rotation(positions=rope.grid_positions(*GRID))
            )
        y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-6)
        return (y * p["norm"]["scale"][None, None] + p["norm"]["bias"][None, None]).mean(axis=1)

    np.testing.assert_allclose(run(module, variables, x), jax.jit(by_hand)(p, x), atol=1e-5)


def test_scan_and_remat_change_neither_parameters_nor_values_nor_gradients():
    x, keys = images(5, 4), {"dropout": jax.random.key(3, impl="rbg")}  # compiles sooner
    options = {"layer_scale": 0.5, "dropout": 0.2, "stochastic_depth": 0.5}
    kinds = {}, {"remat": True}, {"scan": True}, {"scan": True, "remat": True}
    variables = weights(tiny(**options), 3)

    @partial(jax.jit, static_argnums=0)
    def step(module, variables):
        def loss(variables):
            logits = module.apply(variables, x, train=True, rngs=keys)
            return jnp.sum(logits**2), logits

        return jax.grad(loss, has_aux=True)(variables)

    (gradients, logits), *others = (step(tiny(**options, **kind), variables) for kind in kinds)
    assert np.abs(logits).max() > 0.1
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradients))
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    for other in others:
        np.testing.assert_allclose(other[1], logits, rtol=1e-4, atol=1e-5)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5 * scale), other[0], gradients)


@pytest.mark.parametrize("scan", [False, True])
def test_stochastic_depth_grows_from_none_at_the_first_layer(scan):
    """At 1.0 the second of two layers is always left out and the first never: what remains has one layer."""
    module, x = tiny(stochastic_depth=1.0, scan=scan), images(6)
    variables = weights(module, 4)
    first = variables["params"] | {"encoder": jax.tree.map(lambda leaf: leaf[:1], variables["params"]["encoder"])}
    out = run(module, variables, x, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(out, run(tiny(depth=1), {"params": first}, x), atol=1e-5)


def test_without_train_nothing_is_drawn():
    x, noisy = images(6), tiny(stochastic_depth=1.0, dropout=0.5)
    variables = weights(noisy, 4)
    np.testing.assert_array_equal(run(noisy, variables, x), run(tiny(), variables, x))  # nor are keys asked for


def test_dropout_is_on_the_tokens_and_drawn_anew_with_each_key():
    module, x = tiny(dropout=0.5, depth=1, classes=0), images(7)
    variables = jax.tree.map(jnp.zeros_like, weights(module))  # a class token of ones is all there is
    variables["params"]["norm"]["scale"] += 1
    variables["params"]["class_token"] += 1
    forward = jax.jit(lambda key: module.apply(variables, x, train=True, rngs={"dropout": key}))
    a, again, b = (np.asarray(forward(jax.random.key(i))) for i in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert not np.array_equal(a, b)
    assert not np.array_equal(a[0], a[1])
    assert [len(np.unique(np.round(image, 3))) for image in (*a, *b)] == [2, 2, 2, 2]


def test_remat_is_in_the_program_where_it_is_asked_for():
    for remat in (False, True):
        module = tiny(remat=remat, depth=1)
        program = jax.make_jaxpr(module.apply)(weights(module), images(0))
        assert ("remat" in str(program)) == remat


@pytest.mark.parametrize("scan", [False, True])
def test_each_layer_draws_its_own_dropout(scan):
    """Two layers that add one to each channel, or nothing: what they drop agrees in some channels, not in all."""
    module, x = tiny(dropout=0.5, classes=0, scan=scan), images(7)
    variables = jax.tree.map(jnp.zeros_like, weights(module))
    variables["params"]["norm"]["scale"] += 1
    variables["params"]["encoder"]["attention"]["out"]["bias"] += 1
    out = np.asarray(run(module, variables, x, train=True, rngs={"dropout": jax.random.key(0)}))
    assert [len(np.unique(np.round(image, 3))) for image in out] == [3, 3]


@pytest.mark.parametrize("options", [{}, {"scan": True, "remat": True, "rope": "dinov3", "pooling": "gap"}])
def test_attention_maps_are_there_when_asked_for(options):
    module, x = tiny(registers=1, **options), images(8)
    variables = weights(module, 6)
    tokens = 6 + 1 + (module.pooling == "cls")
    out, collections = run(module, variables, x, mutable=["maps"])
    np.testing.assert_allclose(out, run(module, variables, x), atol=1e-6)
    (maps,) = jax.tree.leaves(collections)
    assert set(collections) == {"maps"}
    assert maps.shape == (2, 2, 2, tokens, tokens)
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.sum(axis=-1), np.ones(maps.shape[:-1]), atol=1e-6)
    assert np.abs(maps[0] - maps[1]).max() > 1e-3
    given = jax.eval_shape(module.init, jax.random.key(0), x)
    assert set(given) == {"params"}


def test_bfloat16_computes_in_bfloat16_with_parameters_and_logits_in_float32():
    module = tiny(
        dtype=jnp.bfloat16, qk_norm=True, layer_scale=0.5, registers=1, rope="naver_axial", pooling="map", depth=1
    )
    variables = weights(module, 11)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    half, full = run(module, variables, images(9)), run(module.clone(dtype=jnp.float32), variables, images(9))
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


# ---------------------------------------------------------------------------------------------------------
# Rotations.


class Moved(ViT):
    """Every patch 5 further to the right and 3 further down."""

    def rotation(self, grid):
        preset = rope.PRESETS[self.rope]
        positions = rope.grid_positions(*grid, preset.coordinates) + jnp.array([[5.0, 3.0]])
        if preset.kind == "mixed":
            return Rotation(positions=jnp.pad(positions, ((self.num_prefix_tokens, 0), (0, 0))))
        angles = rope.preset_angles(self.rope, 8, positions)
        return Rotation(angles=rope.leave_unrotated(angles, first=self.num_prefix_tokens))


@pytest.mark.parametrize(
    ("preset", "pooling", "unchanged"),
    [
        ("naver_axial", "gap", True),
        ("naver_mixed", "gap", True),
        ("timm", "map", True),
        ("naver_axial", "cls", False),  # an unrotated token is a place to count from
    ],
)
def test_only_differences_of_positions_are_felt(preset, pooling, unchanged):
    module = tiny(rope=preset, position="none", pooling=pooling, scan=True)
    moved = Moved(
        **{name: getattr(module, name) for name in ViT.__dataclass_fields__ if name not in ("parent", "name")}
    )
    variables, x = weights(module, 7), images(10)
    change = np.abs(run(module, variables, x) - run(moved, variables, x)).max()
    assert change < 2e-5 if unchanged else change > 1e-3


def turned_by(module, grid):
    """Angles [N, Dh/2], or positions [N, 2] where frequencies are learned; one of both is there."""
    (array,) = (array for array in module.rotation(grid) if array is not None)
    return np.asarray(array)


ANGLES = ["naver_axial", "timm", "naver_mixed"]


@pytest.mark.parametrize("preset", ANGLES)
@pytest.mark.parametrize("grid", [(8, 8), (4, 8), (8, 4), (12, 4)])
def test_interpolation_puts_a_larger_image_where_the_trained_one_was(preset, grid):
    trained = tiny(rope=preset, registers=2)
    larger = tiny(rope=preset, registers=2, rope_scaling="interpolate", trained_grid=4)
    small, large = turned_by(trained, (4, 4)), turned_by(larger, grid)
    assert small.shape[0] == 3 + 16
    assert not small[:3].any()
    assert not large[:3].any()
    down, right = grid[0] // 4, grid[1] // 4
    at_trained = large[3:].reshape(*grid, -1)[::down, ::right]
    np.testing.assert_allclose(at_trained, small[3:].reshape(4, 4, -1), atol=1e-6)
    np.testing.assert_array_equal(turned_by(larger, (4, 4)), small)
    assert larger.block_options(grid)["mixed_rope"] == trained.block_options(grid)["mixed_rope"]


def test_interpolation_along_a_line_and_of_normalised_coordinates():
    line = tiny(rope="roformer", pooling="gap", rope_scaling="interpolate", trained_grid=4)
    expected = rope.rope_angles(jnp.arange(32) / 2, rope.rope_frequencies(8))
    np.testing.assert_allclose(turned_by(line, (4, 8)), expected, atol=1e-6)
    normalised = tiny(rope="dinov3", rope_scaling="interpolate", trained_grid=4)
    np.testing.assert_array_equal(turned_by(normalised, (4, 8)), turned_by(tiny(rope="dinov3"), (4, 8)))
    assert tiny().rotation(GRID) is None


def test_ntk_keeps_the_fastest_pair_and_interpolates_the_slowest():
    grid, options = (4, 8), {"pooling": "gap", "rope_scaling": "ntk", "trained_grid": 4}  # twice as wide as trained
    plain = turned_by(tiny(rope="naver_axial", pooling="gap"), grid)
    given = turned_by(tiny(rope="naver_axial", **options), grid)
    np.testing.assert_allclose(given, plain / np.array([1, 2, 1, 1]), rtol=1e-5)  # x fast, x slow, y fast, y slow
    mixed = tiny(rope="naver_mixed", **options)
    assert mixed.block_options(grid)["mixed_rope"].ntk_scale == (2, 1)
    assert mixed.block_options((4, 4))["mixed_rope"].ntk_scale == (1, 1)
    np.testing.assert_array_equal(turned_by(mixed, grid), rope.grid_positions(*grid))
    with pytest.raises(ValueError, match="no NTK rule"):
        tiny(rope="dinov3", **options).rotation(grid)
