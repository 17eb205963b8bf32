"""Attention against a loop over batch, head and query in float64; masks, gradients, types, and where kernels apply."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers import attention
from gormley_vision.layers.attention import (
    attend,
    attention_weights,
    causal_mask,
    choose_kernel,
    padding_mask,
    plain_attention,
)

B, T, S, K, D = 2, 5, 7, 3, 4


def draw(seed, t=T, s=S, d=D, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = (B, t, K, d), (B, s, K, d), (B, s, K, d)
    return tuple(jnp.asarray(rng.normal(size=shape) * 1.5, dtype) for shape in shapes)


def reference(query, key, value, allowed):
    """(A [B, K, T, S], X' [B, T, K, Dh]) in float64, one query at a time; `allowed` [B, K, T, S] bool."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    weights = np.zeros(allowed.shape)
    for b, h, t, s in np.argwhere(allowed):
        weights[b, h, t, s] = np.exp(query[b, t, h] @ key[b, s, h] / np.sqrt(query.shape[-1]))
    for row in weights.reshape(-1, weights.shape[-1]):
        row /= row.sum() or 1
    mixed = np.zeros(query.shape)
    for b, h, t, s in np.ndindex(*weights.shape):
        mixed[b, t, h] += weights[b, h, t, s] * value[b, s, h]
    return weights, mixed


def run(function, *inputs, mask=None, **options):
    """Compiled as a whole: op by op, compiling takes longer."""
    return jax.jit(lambda mask, *inputs: partial(function, **options)(*inputs, mask=mask))(mask, *inputs)


def gradients(function, query, key, value, **options):
    return run(jax.grad(function, argnums=(0, 1, 2)), query, key, value, **options)


def mask_of(kind, t=T, s=S):
    """(mask and causal as `attend` takes them, who may see whom in full)."""
    allowed = np.ones((B, K, t, s), bool)
    mask, causal = None, "causal" in kind
    if "padding" in kind:
        lengths = [3, s]
        mask = padding_mask(jnp.array(lengths), s)
        for b, length in enumerate(lengths):
            allowed[b, ..., length:] = False
    if "holes" in kind:  # the second query of one head sees nothing
        mask = np.random.default_rng(5).random((B, K, t, s)) < 0.6
        mask[:, 1, 1] = False
        allowed &= mask
        mask = jnp.asarray(mask)
    if causal:
        for query in range(t):
            allowed[:, :, query, query + 1 :] = False
    return {"mask": mask, "causal": causal}, allowed


KINDS = ["none", "causal", "padding", "causal padding", "holes", "causal holes"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("t", "s"), [(T, S), (S, T)], ids=["more keys", "more queries"])
def test_values_are_those_of_the_definition(kind, t, s):
    query, key, value = draw(0, t, s)
    options, allowed = mask_of(kind, t, s)
    weights, mixed = reference(query, key, value, allowed)
    np.testing.assert_allclose(run(attend, query, key, value, **options), mixed, atol=2e-6)
    given = np.asarray(run(attention_weights, query, key, **options))
    np.testing.assert_allclose(given, weights, atol=5e-7)
    np.testing.assert_allclose(given.sum(axis=-1), allowed.any(axis=-1), atol=1e-6)
    assert not given[~allowed].any()
    np.testing.assert_allclose(np.einsum("bkts,bskd->btkd", given, value), mixed, atol=2e-6)


@pytest.mark.parametrize("kind", ["none", "causal padding", "holes"])
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("function", [attend, partial(attention._cudnn, implementation="xla")], ids=["plain", "fused"])
def test_query_head_i_reads_key_head_i_over_the_size_of_a_group(kind, kv_heads, function):
    rng = np.random.default_rng(11)
    heads = 2 * kv_heads
    query = jnp.asarray(rng.normal(size=(B, T, heads, D)), jnp.float32)
    key, value = jnp.asarray(rng.normal(size=(2, B, S, kv_heads, D)), jnp.float32)
    options, allowed = mask_of(kind)
    allowed = np.stack([allowed[:, i % K] for i in range(heads)], axis=1)
    if options["mask"] is not None and options["mask"].shape[1] == K:
        options["mask"] = jnp.stack([options["mask"][:, i % K] for i in range(heads)], axis=1)
    shared = [i // 2 for i in range(heads)]
    _, mixed = reference(query, key[:, :, shared], value[:, :, shared], allowed)
    np.testing.assert_allclose(run(function, query, key, value, **options), mixed, atol=2e-6)
    if function is attend:
        weights = run(attention_weights, query, key, **options)
        np.testing.assert_allclose(
            weights, reference(query, key[:, :, shared], value[:, :, shared], allowed)[0], atol=1e-6
        )


def test_heads_that_make_no_groups_are_refused():
    query, key, value = draw(12)
    with pytest.raises(ValueError, match="3 query heads do not divide into 2 groups"):
        attend(query, key[:, :, :2], value[:, :, :2])


def test_dropout_is_of_the_weights_and_keeps_their_mean():
    query, key, value = draw(13)
    weights, _ = reference(query, key, value, np.ones((B, K, T, S), bool))
    kept = np.random.default_rng(0).random((B, K, T, S)) < 0.7
    given = run(attend, query, key, value, drop=lambda a: jnp.where(jnp.asarray(kept), a / 0.7, 0))
    np.testing.assert_allclose(given, np.einsum("bkts,bskd->btkd", weights * kept / 0.7, value), atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_kernels_branch_agrees(kind):
    query, key, value = draw(1)
    options, allowed = mask_of(kind)
    fused = run(attention._cudnn, query, key, value, implementation="xla", **options)
    np.testing.assert_allclose(fused, reference(query, key, value, allowed)[1], atol=2e-6)


def test_float64_is_carried_through():
    with jax.enable_x64(True):
        query, key, value = draw(2, dtype=np.float64)
        options, allowed = mask_of("causal holes")
        weights, mixed = reference(query, key, value, allowed)
        given = run(attend, query, key, value, **options)
        assert given.dtype == jnp.float64
        np.testing.assert_allclose(given, mixed, atol=1e-14)
        np.testing.assert_allclose(run(attention_weights, query, key, **options), weights, atol=1e-14)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["none", "causal padding"])
def test_half_precision_is_kept_and_rounds_no_more_than_it_must(dtype, kind):
    query, key, value = draw(3, 16, 16, 64, dtype)
    options, allowed = mask_of(kind, 16, 16)
    weights, mixed = reference(query, key, value, allowed)
    given = run(attend, query, key, value, **options)
    assert given.dtype == dtype
    # Weights, their products and the result are rounded once each, to 8 or 11 bits; 1/8 scales without rounding.
    bound = 3 * float(jnp.finfo(dtype).eps) / 2 * np.einsum("bkts,bskd->btkd", weights, np.abs(np.float64(value)))
    error = np.abs(np.float64(given) - mixed)
    assert (error <= bound).all()
    assert error.max() > 0
    weighed = run(attention_weights, query, key, **options)
    assert weighed.dtype == jnp.float32
    np.testing.assert_allclose(weighed, weights, atol=1e-6)


def test_float16_does_not_overflow_where_the_result_does_not():
    zeros, value = jnp.zeros((1, 197, 1, 8), jnp.float16), jnp.full((1, 197, 1, 8), 500, jnp.float16)
    np.testing.assert_array_equal(run(attend, zeros, zeros, value), value)  # the mean of equal values


def test_large_scores_do_not_overflow():
    query, key, value = (np.asarray(x) for x in draw(4))
    query = query * np.float32(1e4)
    scores = np.einsum("btkd,bskd->bkts", query.astype(np.float64), key)
    expected = np.take_along_axis(value.swapaxes(1, 2), scores.argmax(axis=-1)[..., None], axis=2).swapaxes(1, 2)
    np.testing.assert_allclose(run(attend, query, key, value), expected, atol=1e-6)
    squares = gradients(lambda *x, mask: jnp.sum(attend(*x, mask=mask) ** 2), query, key, value)
    assert all(np.isfinite(g).all() for g in squares)


@pytest.mark.parametrize("function", [plain_attention, attend, "fused"])
def test_a_query_that_sees_nothing_gets_zeros_and_gives_none_but_zero_gradients(function):
    query, key, value = draw(6)
    mask = np.ones((B, K, T, S), bool)
    mask[0, :, 2] = False  # one query of the first sequence, all of the second
    mask[1] = False

    if function == "fused":
        function = partial(attention._cudnn, implementation="xla", causal=False)
    out = np.asarray(run(function, query, key, value, mask=jnp.asarray(mask)))
    for blind in (out[0, 2], out[1]):
        np.testing.assert_array_equal(blind, np.zeros_like(blind))
    assert np.abs(out[0, [0, 1, 3, 4]]).min() > 0
    total = lambda *x, mask: jnp.sum(function(*x, mask=mask))  # noqa: E731
    of_query, of_key, of_value = (np.asarray(g) for g in gradients(total, query, key, value, mask=jnp.asarray(mask)))
    for gradient in (of_query, of_key, of_value):
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[1], np.zeros_like(gradient[1]))
        assert np.abs(gradient[0]).max() > 0
    np.testing.assert_array_equal(of_query[0, 2], np.zeros((K, D)))
    # Every key and value is seen by four queries of one: each of them hands on its whole weight.
    np.testing.assert_allclose(of_value[0].sum(axis=0), np.full((K, D), T - 1), rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "causal padding"])
def test_gradients_are_those_of_the_textbook_formula(kind):
    query, key, value = draw(7)
    options, allowed = mask_of(kind)
    cotangent = draw(8)[0]

    def textbook(query, key, value, mask):
        scores = jnp.einsum("btkd,bskd->bkts", query, key) / jnp.sqrt(D)
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        return jnp.sum(cotangent * jnp.einsum("bkts,bskd->btkd", weights, value))

    ours = gradients(lambda *x, **o: jnp.sum(cotangent * attend(*x, **o)), query, key, value, **options)
    expected = gradients(textbook, query, key, value, mask=jnp.asarray(allowed))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)
        assert np.abs(b).max() > 0.1


def test_a_causal_query_does_not_depend_on_later_tokens():
    query, key, value = (np.asarray(x) for x in draw(9, S, S))
    causal = jax.jit(partial(attend, causal=True))
    before = np.asarray(causal(query, key, value))
    for t in range(S):
        later = np.arange(S)[None, :, None, None] > t
        changed = np.where(later, np.float32(9), key), np.where(later, np.float32(-5), value)
        after = np.asarray(causal(query, *changed))
        np.testing.assert_array_equal(before[:, : t + 1], after[:, : t + 1])
        assert t == S - 1 or np.abs(before[:, t + 1 :] - after[:, t + 1 :]).min() > 0
    np.testing.assert_allclose(before[:, 0], value[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(before, run(attend, query, key, value, mask=causal_mask(S, S)))


def test_masks_say_who_may_see_whom():
    expected = [[True, False, False, False], [True, True, False, False]]
    np.testing.assert_array_equal(causal_mask(2, 4), np.array(expected)[None, None])
    expected = [[False, False, False], [True, True, False], [True, True, True]]
    np.testing.assert_array_equal(padding_mask(jnp.array([0, 2, 3]), 3), np.array(expected)[:, None, None])


@pytest.mark.parametrize("dim", [8, 16, 64, 72, 80, 88, 104, 112, 128])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("lengths", [(197, 197), (1, 257), (1024, 1024)])
def test_cuda_has_a_kernel_for_the_heads_of_every_published_size(dim, dtype, lengths):
    assert choose_kernel("cuda", dtype, dim, lengths, masked=False) == "cudnn"


@pytest.mark.parametrize(
    ("kernel", "platform", "dtype", "dim", "lengths", "masked"),
    [
        ("plain", "cuda", "bfloat16", 36, (196, 196), False),  # no multiple of 8
        ("plain", "cuda", "bfloat16", 130, (196, 196), False),
        ("plain", "cuda", "bfloat16", 136, (196, 196), False),  # too wide
        ("plain", "cuda", "bfloat16", 256, (196, 196), False),
        ("plain", "cuda", "float32", 64, (196, 196), False),
        ("plain", "cuda", "float64", 64, (196, 196), False),
        ("short", "tpu", "bfloat16", 64, (197, 197), False),
        ("short", "tpu", "bfloat16", 256, (512, 1), False),
        ("plain", "tpu", "bfloat16", 64, (197, 513), False),  # too long
        ("plain", "tpu", "bfloat16", 64, (196, 196), True),
        ("plain", "tpu", "float32", 64, (197, 197), False),
        ("plain", "tpu", "bfloat16", 36, (197, 197), False),
        ("plain", "cpu", "bfloat16", 64, (196, 196), False),
        ("plain", "rocm", "bfloat16", 64, (196, 196), False),
        ("cudnn", "cuda", "bfloat16", 64, (196, 196), True),
        ("plain", "cuda", "bfloat16", 64, (197, 197), True),
        ("plain", "cuda", "bfloat16", 64, (196, 197), True),
        ("plain", "cuda", "bfloat16", 64, (197, 196), True),
    ],
)
def test_rules(kernel, platform, dtype, dim, lengths, masked):
    assert choose_kernel(platform, dtype, dim, lengths, masked) == kernel


def test_a_rule_is_asked_for_the_call_at_hand(monkeypatch):
    """On a machine with a GPU, in as far as one without can tell: which questions `attend` asks of the rules."""
    asked = []
    gpu = type("Device", (), {"platform": "gpu"})
    monkeypatch.setattr(jax, "devices", lambda: [gpu()])
    monkeypatch.setattr(attention, "choose_kernel", lambda *question: asked.append(question) or "plain")
    query, key, value = draw(10, dtype=jnp.bfloat16)
    attend(query, key, value)
    attend(query, key, value, mask=padding_mask(jnp.array([3, 4]), S))
    attend(query, key[:, :, :1], value[:, :, :1])
    asked_of = [(False, False), (True, False), (False, True)]  # masked, grouped
    assert asked == [("cuda", "bfloat16", D, (T, S), *what) for what in asked_of]


def test_only_some_kernels_take_fewer_keys_than_queries():
    assert choose_kernel("cuda", "bfloat16", 64, (128, 128), masked=False, grouped=True) == "cudnn"
    assert choose_kernel("tpu", "bfloat16", 64, (128, 128), masked=False, grouped=True) == "plain"


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((B, 1, T, S), np.float32),
        np.ones((B, 1, T, S), np.int32),
        np.ones((T, S), bool),
        np.ones((B, T, S), bool),
        np.ones((B, 1, S, T), bool),
        np.ones((B, 2, T, S), bool),
        np.ones((B + 1, 1, T, S), bool),
    ],
)
@pytest.mark.parametrize("function", [attend, lambda q, k, _, **options: attention_weights(q, k, **options)])
def test_other_masks_are_refused(mask, function):
    with pytest.raises(ValueError, match=r"mask is bool|[Bb]roadcast"):
        function(*draw(11), mask=jnp.asarray(mask))


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ((T, K, D), (S, K, D), (S, K, D)),
        ((B, T, K, D), (B, S, K, D), (B, S + 1, K, D)),
        ((B, T, K, D), (B, S, K, D), (B, S, K, D + 1)),
        ((B, T, K, D), (B, S, K, D + 1), (B, S, K, D + 1)),
        ((B, T, K, D), (1, S, K, D), (1, S, K, D)),
        ((B, T, K, D), (S, K, D), (S, K, D)),
        ((B, T, K, D), (D,), (D,)),
    ],
)
def test_shapes_that_are_not_alike_are_refused(query, key, value):
    with pytest.raises(ValueError, match=r"not \[B, T or S, K, Dh\] alike"):
        attend(*(jnp.zeros(shape) for shape in (query, key, value)))
