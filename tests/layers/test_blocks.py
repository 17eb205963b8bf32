"""Blocks against numpy in float64, rotations as complex numbers; stochastic depth by the two values it may give."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers import rope
from gormley_vision.layers.blocks import MLP, Attention, Block, Initial, MixedRope, Norm, Rotation, make_norm

B, N, D, K, F = 2, 6, 16, 2, 24
GRID = (2, 3)


def tokens(seed, batch=B):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, N, D)), jnp.float32)


def weights(module, seed, *inputs):
    """Every parameter random, so that none is hidden by a zero or a one that it starts from."""
    shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def run(module, variables, *inputs, **options):
    return jax.jit(partial(module.apply, **options))(variables, *inputs)


def float64(variables):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])


# ---------------------------------------------------------------------------------------------------------
# The same in numpy, from the papers.


def norm(x, p, kind=None):
    kind = kind or Norm("layer" if "bias" in p else "rms")
    if kind.kind == "layer":
        x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + kind.epsilon) * p["scale"] + p.get("bias", 0)


def gelu(x, kind):
    if kind == "erf":
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def turn(x, angles, pairing):
    """Each pair of channels a complex number, times e^(i angle)."""
    half = x.shape[-1] // 2
    first, second = (
        (slice(0, None, 2), slice(1, None, 2)) if pairing == "interleaved" else (slice(half), slice(half, None))
    )
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angles)
    out = np.empty_like(x)
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


def projections(p):
    """(kernel, bias) of queries, keys and values, for each query head."""
    if "qkv" in p:
        parts = [[(p["qkv"], k, i) for i in range(3)] for k in range(p["qkv"]["kernel"].shape[1])]
    else:
        heads, kv_heads = p["query"]["kernel"].shape[1], p["key_value"]["kernel"].shape[1]
        shared = [k * kv_heads // heads for k in range(heads)]
        parts = [[(p["query"], k, 0), *((p["key_value"], shared[k], i) for i in range(2))] for k in range(heads)]
    return [[(d["kernel"][:, k, i], d["bias"][k, i] if "bias" in d else 0) for d, k, i in part] for part in parts]


def attention(x, p, angles=None, pairing="interleaved", allowed=None):
    """`angles` [K, N, Dh/2]."""
    mixed = np.zeros_like(x)
    for k, matrices in enumerate(projections(p)):
        q, k_, v = (x @ kernel + bias for kernel, bias in matrices)
        if "query_norm" in p:
            q, k_ = norm(q, p["query_norm"]), norm(k_, p["key_norm"])
        if angles is not None:
            q, k_ = turn(q, angles[k], pairing), turn(k_, angles[k], pairing)
        scores = q @ k_.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        a = np.exp(scores - scores.max(-1, keepdims=True))
        mixed += a / a.sum(-1, keepdims=True) @ v @ p["out"]["kernel"][k]
    return mixed + p["out"].get("bias", 0)


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def mlp(x, p, kind):
    hidden = dense(x, p["in"])
    if kind == "swiglu":
        gate = dense(x, p["gate"])
        hidden = gate / (1 + np.exp(-gate)) * hidden
    elif kind == "geglu":
        hidden = gelu(dense(x, p["gate"]), "tanh") * hidden
    else:
        hidden = np.maximum(hidden, 0) ** 2 if kind == "relu_squared" else gelu(hidden, kind)
    return dense(hidden, p["out"])


def block(x, p, kind, parallel, norm_kind=None, **options):
    scale_1, scale_2 = p.get("layer_scale_1", 1.0), p.get("layer_scale_2", 1.0)
    norm = partial(globals()["norm"], kind=norm_kind)
    y = norm(x, p["norm_1"])
    if parallel:
        return x + scale_1 * (attention(y, p["attention"], **options) + mlp(y, p["mlp"], kind))
    x = x + scale_1 * attention(y, p["attention"], **options)
    return x + scale_2 * mlp(norm(x, p["norm_2"]), p["mlp"], kind)


# ---------------------------------------------------------------------------------------------------------


CASES = {
    "plain": {},
    "erf": {"activation": "erf"},
    "ReLU squared": {"activation": "relu_squared"},
    "SwiGLU": {"activation": "swiglu"},
    "GEGLU": {"activation": "geglu"},
    "multi-query": {"kv_heads": 1},
    "no biases": {"bias": False, "qkv_bias": False, "norm": Norm("layer", 1e-5, False)},
    "epsilon": {"norm": Norm("rms", 0.3)},
    "Llama": {"activation": "swiglu", "norm": Norm("rms", 1e-5), "bias": False, "qkv_bias": False, "kv_heads": 1},
    "rms": {"norm": Norm("rms")},
    "LayerScale": {"layer_scale": 0.1},
    "QK-norm": {"qk_norm": True},
    "causal": {"causal": True},
    "parallel": {"parallel": True},
    "parallel LayerScale": {"parallel": True, "layer_scale": 0.1},
    "22B": {"parallel": True, "norm": Norm("rms"), "qk_norm": True, "qkv_bias": False},
}


@pytest.mark.parametrize("case", CASES)
def test_a_block_is_what_the_papers_write(case):
    options = CASES[case]
    module, x, rate = Block(K, F, **options), tokens(0), jnp.zeros(())
    variables = weights(module, 1, x, rate)
    names = {"/".join(key.key for key in path[1:]) for path, _ in jax.tree.leaves_with_path(variables)}
    assert ("attention/query_norm/scale" in names) == options.get("qk_norm", False)
    kind = options.get("norm", Norm())
    assert ("attention/qkv/bias" in names) == (options.get("qkv_bias", True) and "kv_heads" not in options)
    assert ("norm_1/bias" in names) == (kind.kind == "layer" and kind.use_bias)
    assert ("mlp/out/bias" in names) == ("attention/out/bias" in names) == options.get("bias", True)
    assert ("mlp/gate/kernel" in names) == options.get("activation", "").endswith("glu")
    assert ("norm_2/scale" in names) == (not options.get("parallel", False))
    assert ("layer_scale_1" in names) == ("layer_scale" in options)
    out, stacked = run(module, variables, x, rate)
    allowed = np.tril(np.ones((N, N), bool)) if options.get("causal") else None
    expected = block(
        np.float64(x),
        float64(variables),
        options.get("activation", "tanh"),
        "parallel" in options,
        norm_kind=kind if kind != Norm() else None,
        allowed=allowed,
    )
    assert stacked is None
    assert 1 < np.abs(expected - x).max() < 100
    np.testing.assert_allclose(out, expected, atol=3e-5)


@pytest.mark.parametrize("pairing", ["interleaved", "half"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_queries_and_keys_are_rotated_after_their_norm(pairing, qk_norm):
    x = tokens(2)
    # RoPE-ViT: channels of x first, then of y; theta_j = 100^(-4j / Dh).
    at_x, at_y = np.arange(N) % GRID[1], np.arange(N) // GRID[1]
    theta = 100.0 ** (-4 * np.arange(D // K // 4) / (D // K))
    angles = np.concatenate([at_x[:, None] * theta, at_y[:, None] * theta], axis=-1)
    module = Attention(K, qk_norm=qk_norm, pairing=pairing)
    rotation = Rotation(angles=jnp.asarray(angles, jnp.float32))
    variables = weights(module, 3, x, rotation)
    given, _ = run(module, variables, x, rotation)
    p = float64(variables)
    np.testing.assert_allclose(given, attention(np.float64(x), p, [angles] * K, pairing), atol=1e-5)
    assert np.abs(given - attention(np.float64(x), p)).max() > 1e-2  # the rotation is felt


@pytest.mark.parametrize("ntk_scale", [(1.0, 1.0), (2.0, 3.0)])
def test_each_head_turns_by_its_own_learned_frequencies(ntk_scale):
    x, rotation = tokens(4), Rotation(positions=rope.grid_positions(*GRID))
    module = Attention(K, mixed_rope=MixedRope(10.0, ntk_scale))
    variables = weights(module, 5, x, rotation)
    p = float64(variables)
    fx, fy = p["rope_frequencies"]  # [K, Dh/2] each
    count = D // K // 4
    slower = np.tile(np.arange(count) / (count - 1), 2)
    fx, fy = fx / ntk_scale[0] ** slower, fy / ntk_scale[1] ** slower
    at_x, at_y = np.arange(N) % GRID[1], np.arange(N) // GRID[1]
    angles = [np.outer(at_x, fx[k]) + np.outer(at_y, fy[k]) for k in range(K)]
    given, _ = run(module, variables, x, rotation)
    np.testing.assert_allclose(given, attention(np.float64(x), p, angles), atol=1e-5)
    assert np.abs(given - attention(np.float64(x), p)).max() > 1e-2
    felt = jax.jit(jax.grad(lambda v: jnp.sum(module.apply(v, x, rotation)[0] ** 2)))(variables)
    assert np.abs(felt["params"]["rope_frequencies"]).min() > 0


def test_padding_changes_nothing_for_those_who_are_there():
    x = tokens(6)
    mask = (jnp.arange(N) < N - 2)[None, None, None]
    module, rate = Block(K, F), jnp.zeros(())
    variables = weights(module, 7, x, rate, None, mask)
    out, _ = run(module, variables, x, rate, None, mask)
    short, _ = run(module, variables, x[:, : N - 2], rate)
    np.testing.assert_allclose(out[:, : N - 2], short, atol=1e-5)


def test_parameters_and_their_initial_values():
    options = {"qk_norm": True, "layer_scale": 1e-5, "mixed_rope": MixedRope(10.0)}
    module, x = Block(8, 512, **options), jnp.zeros((1, 4, 256))
    rotation = Rotation(positions=jnp.zeros((4, 2)))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x, jnp.zeros(()), rotation))["params"]
    shapes = {"/".join(key.key for key in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}
    of_norm = {"scale": (256,), "bias": (256,)}
    assert shapes == {
        "attention/qkv/kernel": (256, 8, 3, 32),
        "attention/qkv/bias": (8, 3, 32),
        "attention/query_norm/scale": (32,),
        "attention/query_norm/bias": (32,),
        "attention/key_norm/scale": (32,),
        "attention/key_norm/bias": (32,),
        "attention/rope_frequencies": (2, 8, 16),
        "attention/out/kernel": (8, 32, 256),
        "attention/out/bias": (256,),
        "mlp/in/kernel": (256, 512),
        "mlp/in/bias": (512,),
        "mlp/out/kernel": (512, 256),
        "mlp/out/bias": (256,),
        "layer_scale_1": (256,),
        "layer_scale_2": (256,),
        **{f"norm_{i}/{name}": shape for i in (1, 2) for name, shape in of_norm.items()},
    }
    # Xavier: uniform within sqrt(6 / (fan in + fan out)), Q, K and V each a matrix [D, D].
    for kernel, fans in [
        (params["attention"]["qkv"]["kernel"], 512),
        (params["attention"]["out"]["kernel"], 512),
        (params["mlp"]["in"]["kernel"], 768),
        (params["mlp"]["out"]["kernel"], 768),
    ]:
        bound = math.sqrt(6 / fans)
        assert 0.99 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / math.sqrt(3), rtol=0.01)
    assert not params["attention"]["qkv"]["bias"].any()
    np.testing.assert_allclose(params["mlp"]["in"]["bias"].std(), 1e-6, rtol=0.15)
    np.testing.assert_array_equal(params["layer_scale_1"], np.full(256, 1e-5, np.float32))
    # Each pair's direction is drawn, its length is not.
    lengths = np.linalg.norm(params["attention"]["rope_frequencies"], axis=0)
    np.testing.assert_allclose(lengths, np.tile(10.0 ** (-np.arange(8) / 8), (8, 2)), rtol=1e-5)


def test_initial_values_of_gpt_2():
    module, x = Block(8, 512, initial=Initial(0.02, 0.005), activation="swiglu", kv_heads=2), jnp.zeros((1, 4, 256))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x, jnp.zeros(())))["params"]
    assert params["attention"]["query"]["kernel"].shape == (256, 8, 1, 32)
    assert params["attention"]["key_value"]["kernel"].shape == (256, 2, 2, 32)
    for std, kernels in {
        0.02: [
            params["attention"]["query"],
            params["attention"]["key_value"],
            params["mlp"]["in"],
            params["mlp"]["gate"],
        ],
        0.005: [params["attention"]["out"], params["mlp"]["out"]],
    }.items():
        for part in kernels:
            np.testing.assert_allclose(part["kernel"].std(), std, rtol=0.02)
            np.testing.assert_allclose(part["kernel"].mean(), 0, atol=4 * std / math.sqrt(part["kernel"].size))


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_bfloat16_computes_in_bfloat16_with_parameters_in_float32(kind):
    options = {"norm": Norm(kind), "qk_norm": True, "layer_scale": 0.1}
    module, x, rate = Block(K, F, dtype=jnp.bfloat16, **options), tokens(8).astype(jnp.bfloat16), jnp.zeros(())
    variables = nn.unbox(jax.jit(module.init)(jax.random.key(1), x, rate))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    half, _ = run(module, variables, x, rate)
    full, _ = run(Block(K, F, **options), variables, x.astype(jnp.float32), rate)
    assert half.dtype == jnp.bfloat16
    assert 0 < np.abs(half.astype(jnp.float32) - full).max() < 0.06
    normed = run(
        make_norm(Norm(kind), jnp.bfloat16), {"params": {"scale": jnp.ones(D)} | {"bias": jnp.zeros(D)}}, 100 + x
    )
    assert normed.dtype == jnp.bfloat16


# ---------------------------------------------------------------------------------------------------------
# Randomness.

NOISY = {"dropout": 0.5, "mlp_dropout": 0.5, "attention_dropout": 0.5, "stochastic_depth": True}


def test_without_train_nothing_is_drawn():
    x, rate = tokens(9), jnp.asarray(0.9)
    module = Block(K, F, **NOISY)
    variables = weights(module, 10, x, rate)
    out, _ = run(module, variables, x, rate)  # no keys given, hence none asked for
    np.testing.assert_array_equal(out, run(Block(K, F), variables, x, jnp.zeros(()))[0])


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("parallel", [False, True])
def test_an_images_branch_is_left_out_or_divided_by_what_is_left(rate, parallel):
    """One image many times: pre-norm, its two branches are there or not, which makes four values; parallel, two."""
    batch = 400
    x, rate = jnp.broadcast_to(tokens(11, 1), (batch, N, D)), jnp.asarray(rate, jnp.float32)
    options = {"parallel": parallel, "layer_scale": 0.5}
    module = Block(K, F, stochastic_depth=True, train=True, **options)
    variables = weights(module, 12, x, rate)
    out = np.asarray(run(module, variables, x, rate, rngs={"dropout": jax.random.key(2)})[0])
    p, one = float64(variables), np.float64(x[0])[None]
    keep = 1 - float(rate)
    values = {}
    for first in (0, 1):
        if parallel:
            branch = block(one, p, "tanh", True) - one
            values[first, 0] = one + first / keep * branch
            continue
        y = one + first / keep * p["layer_scale_1"] * attention(norm(one, p["norm_1"]), p["attention"])
        for second in (0, 1):
            branch = p["layer_scale_2"] * mlp(norm(y, p["norm_2"]), p["mlp"], "tanh")
            values[first, second] = y + second / keep * branch
    near = {name: np.abs(out - value).max(axis=(1, 2)) < 1e-4 for name, value in values.items()}
    np.testing.assert_array_equal(sum(near.values()), np.ones(batch, int))  # each image is at one of them
    for (first, second), at in near.items():
        share = (keep if first else 1 - keep) * (1 if parallel else keep if second else 1 - keep)
        assert abs(at.mean() - share) <= 4 * math.sqrt(share * (1 - share) / batch)
    other = run(module, variables, x, rate, rngs={"dropout": jax.random.key(3)})[0]
    assert np.array_equal(out, other) == (keep == 1)


def test_dropout_is_on_the_hidden_layer_and_on_both_branches():
    ones = jnp.ones((1, 50, 8))
    module = MLP(200, dropout=0.25, train=True)
    params = {
        "in": {"kernel": jnp.zeros((8, 200)), "bias": jnp.full(200, 10.0)},
        "out": {"kernel": jnp.full((200, 8), 1 / 200), "bias": jnp.zeros(8)},
    }
    out = run(module, {"params": params}, ones, rngs={"dropout": jax.random.key(0)})
    spread = 10 * math.sqrt(0.25 / 0.75 / 200)
    np.testing.assert_allclose(out[0, :, 0].mean(), 10, atol=4 * spread / math.sqrt(50))
    np.testing.assert_allclose(out[0, :, 0].std(), spread, rtol=0.4)
    x, rate = tokens(15, 64), jnp.zeros(())
    block_ = Block(K, F, dropout=0.25, mlp_dropout=0.25, train=True)
    variables = weights(block_, 16, x, rate)
    forward = jax.jit(lambda variables: block_.apply(variables, x, rate, rngs={"dropout": jax.random.key(1)})[0])
    for other in ("mlp", "attention"):  # without the other branch, what is dropped leaves x as it was
        dead = jax.tree.map(jnp.zeros_like, variables["params"][other])
        out = forward({"params": variables["params"] | {other: dead}})
        np.testing.assert_allclose((out == x).mean(), 0.25, atol=0.02)
