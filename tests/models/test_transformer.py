"""Transformers on text: published counts, who sees whom by gradients, packing and padding, and the cache."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.models.transformer import Transformer

V, T, B = 11, 12, 3
SMALL = {"vocabulary": V, "context": T, "width": 16, "depth": 2, "mlp": 24, "heads": 4, "causal": True}
POSITIONS = {
    "learned": {},
    "roformer": {"position": "none", "rope": "roformer"},
    "llama": {"position": "none", "rope": "llama", "norm": "rms", "activation": "swiglu", "bias": False},
    "interpolated": {"position": "none", "rope": "roformer", "rope_scaling": "interpolate", "trained_context": 4},
    "NTK": {"position": "none", "rope": "llama", "rope_scaling": "ntk", "trained_context": 4},
    "none": {"position": "none"},
    "both, multi-query": {"rope": "llama", "kv_heads": 1, "qk_norm": True},
    "grouped": {"position": "none", "rope": "llama", "kv_heads": 2, "parallel": True, "tied": False},
}


def draw(seed, shape=(B, T)):
    return jnp.asarray(np.random.default_rng(seed).integers(0, V, shape), jnp.int32)


def made(seed=0, **options):
    """The model, and random parameters, all of a size that matters."""
    model = Transformer(**SMALL | options)
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), draw(0)))
    rng = np.random.default_rng(seed)
    return model, jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), shapes)


def logits_of(model, variables, tokens, **options):
    return np.asarray(jax.jit(lambda v, t, o: model.apply(v, t, **o)[0])(variables, tokens, options))


def count(**options):
    model = Transformer(**options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    return sum(x.size for x in jax.tree.leaves(nn.unbox(shapes)))


def test_published_counts_of_parameters():
    nano = {"vocabulary": 65, "causal": True, "bias": False, "activation": "erf"}
    # nanoGPT prints them without the table of positions: 0.80M and 10.65M (README and its training log).
    assert round((count(**nano, width=128, depth=4, mlp=512, heads=4, context=64) - 64 * 128) / 1e6, 2) == 0.80
    assert round((count(**nano, width=384, depth=6, mlp=1536, heads=6, context=256) - 256 * 384) / 1e6, 2) == 10.65
    # GPT-2: 124,439,808 and 1,557,611,200, of released weights (Hugging Face's gpt2 and gpt2-xl).
    gpt_2 = {"vocabulary": 50257, "context": 1024, "causal": True}
    assert count(**gpt_2, width=768, depth=12, mlp=3072, heads=12) == 124_439_808
    assert count(**gpt_2, width=1600, depth=48, mlp=6400, heads=25) == 1_557_611_200
    # Llama 2 7B and Llama 3 8B (grouped-query): 6,738,415,616 and 8,030,261,248.
    llama = {"context": 4096, "causal": True, "position": "none", "rope": "llama", "norm": "rms", "bias": False}
    llama |= {"activation": "swiglu", "tied": False, "width": 4096, "depth": 32, "heads": 32, "scan": True}
    assert count(**llama, vocabulary=32000, mlp=11008) == 6_738_415_616
    assert count(**llama, vocabulary=128256, mlp=14336, kv_heads=8) == 8_030_261_248


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["learned", "llama", "both, multi-query"])
def test_what_a_vector_depends_on(kind, causal):
    model, variables = made(**POSITIONS[kind], causal=causal)
    table = variables["params"]["token_embedding"]
    tokens = jnp.arange(8)[None] % V

    def at(table, t):
        return jnp.sum(model.apply({"params": variables["params"] | {"token_embedding": table}}, tokens)[0][0, t, :2])

    # All tokens differ and rows 0 and 1 are those of tokens 0 and 1, so row s of the gradient is felt at token s.
    felt = jax.jit(jax.vmap(jax.grad(at), (None, 0)))(table, jnp.arange(8))
    depends = np.abs(felt).max(axis=-1)[:, 2:8] > 0  # tied, rows 0 and 1 are in the head as well
    expected = np.tril(np.ones((8, 8), bool))[:, 2:] if causal else np.ones((8, 6), bool)
    np.testing.assert_array_equal(depends, expected)


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("causal", [True, False])
def test_packed_documents_are_as_if_alone(kind, causal):
    model, variables = made(1, **POSITIONS[kind], causal=causal)
    tokens, lengths = draw(1, (1, T)), (5, 3, 4)
    segments = jnp.asarray(np.repeat(np.arange(3), lengths)[None], jnp.int32)
    positions = jnp.asarray(np.concatenate([np.arange(n) for n in lengths])[None], jnp.int32)
    packed = logits_of(model, variables, tokens, segments=segments, positions=positions)
    for number, end in enumerate(np.cumsum(lengths)):
        own = slice(end - lengths[number], end)
        alone = logits_of(model, variables, tokens[:, own])
        np.testing.assert_allclose(packed[:, own], alone, atol=2e-5)
    assert np.abs(packed - logits_of(model, variables, tokens)).max() > 1e-2  # packing is felt


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing_for_what_is_there(causal):
    model, variables = made(2, causal=causal)
    tokens, valid = draw(2), jnp.arange(T)[None] < jnp.array([T, 7, 1])[:, None]
    padded = logits_of(model, variables, tokens, valid=valid)
    for row, length in enumerate((T, 7, 1)):
        alone = logits_of(model, variables, tokens[row : row + 1, :length])
        np.testing.assert_allclose(padded[row, :length], alone[0], atol=2e-5)


@pytest.mark.parametrize("kind", POSITIONS)
def test_step_by_step_with_a_cache_is_the_whole_text_at_once(kind):
    """Prompts of unequal length, padded on the right and read together; then token by token at each row's own place."""
    model, variables = made(3, **POSITIONS[kind])
    tokens, lengths = draw(3), np.array([5, 1, 3])
    traces = []

    @jax.jit
    def apply(tokens, positions, cache):
        traces.append(tokens.shape)
        return model.apply(variables, tokens, positions=positions, cache=cache)

    whole = logits_of(model, variables, tokens)
    prompt = jnp.where(jnp.arange(5)[None] < lengths[:, None], tokens[:, :5], 7)
    logits, cache = apply(prompt, jnp.broadcast_to(jnp.arange(5)[None], (B, 5)), model.empty_cache(B, T))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(logits[row, :length], whole[row, :length], atol=2e-5)
    for step in range(T - 5):
        at = lengths + step
        token = tokens[np.arange(B), at]
        logits, cache = apply(token[:, None], jnp.asarray(at[:, None], jnp.int32), cache)
        np.testing.assert_allclose(logits[:, 0], whole[np.arange(B), at], atol=2e-5)
    assert traces == [(B, 5), (B, 1)]  # one program for the prompts and one for a token
    heads = model.kv_heads or model.heads
    assert cache.keys.shape == (2, B, T, heads, 4)


def test_scaled_positions_are_what_the_rules_say():
    tokens = draw(4)
    options = {"position": "none", "rope": "llama"}
    model, variables = made(4, **options)
    stretched = jnp.arange(T)[None] * jnp.float32(4 / T)
    interpolated = Transformer(**SMALL, **options, rope_scaling="interpolate", trained_context=4)
    by_hand = logits_of(model, variables, tokens, positions=stretched)
    np.testing.assert_allclose(logits_of(interpolated, variables, tokens), by_hand, atol=1e-5)
    ntk = Transformer(**SMALL, **options, rope_scaling="ntk", trained_context=4)
    assert np.abs(logits_of(ntk, variables, tokens) - by_hand).max() > 1e-3
    same = Transformer(**SMALL, **options, rope_scaling="ntk", trained_context=T)
    np.testing.assert_array_equal(logits_of(same, variables, tokens), logits_of(model, variables, tokens))


def test_the_head_is_the_embedding_or_its_own_or_of_classes():
    tokens = draw(5)
    model, variables = made(5, tied=False, classes=0)
    assert variables["params"]["head"].shape == (16, V)
    tied = Transformer(**SMALL)
    own = {"params": {k: v for k, v in variables["params"].items() if k != "head"}}
    as_untied = {"params": own["params"] | {"head": own["params"]["token_embedding"].T}}
    np.testing.assert_array_equal(logits_of(tied, own, tokens), logits_of(model, as_untied, tokens))
    classifier, variables = made(6, classes=5, causal=False)
    assert logits_of(classifier, variables, tokens).shape == (B, 5)
    other = tokens.at[:, -1].set((tokens[:, -1] + 1) % V)
    assert (logits_of(classifier, variables, tokens) != logits_of(classifier, variables, other)).any(axis=1).all()


def test_dropout_is_drawn_in_training_only():
    model, variables = made(7, dropout=0.3, attention_dropout=0.3)
    apply = jax.jit(partial(model.apply, train=True))
    one, again, other = (apply(variables, draw(7), rngs={"dropout": jax.random.key(k)})[0] for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    plain = logits_of(Transformer(**SMALL), variables, draw(7))
    np.testing.assert_array_equal(logits_of(model, variables, draw(7)), plain)


def test_bfloat16_has_logits_and_parameters_in_float32():
    model, variables = made(8, dtype=jnp.bfloat16)
    logits = logits_of(model, variables, draw(8))
    assert logits.dtype == np.float32
    full = logits_of(Transformer(**SMALL), variables, draw(8))
    assert 0 < np.abs(logits - full).max() < 0.1 * np.abs(full).max()
