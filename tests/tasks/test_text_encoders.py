"""Masked language models and classifiers at [CLS]: masks by counting, what counts, and what is handed over."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import default_config, reset_unread, validate
from gormley_vision.data import tokenizers
from gormley_vision.data.features import Description
from gormley_vision.data.table_source import text_features
from gormley_vision.data.text_source import window_features
from gormley_vision.errors import UserError
from gormley_vision.experiment import make_task
from gormley_vision.randomness import named_key
from gormley_vision.tasks.special_tokens import CLS, MASK, hide_some, mask_tokens, with_cls
from gormley_vision.training.checkpoints import flat
from gormley_vision.training.start import WEIGHTS
from gormley_vision.training.task import first_state

V = 9
LETTERS = "abcdefghi"
TINY = {
    "data.batch_size": 4,
    "data.context": 8,
    "transformer.width": 16,
    "transformer.depth": 2,
    "transformer.mlp": 24,
    "transformer.heads": 2,
    "optimizer.learning_rate": 1e-2,
    "duration": "20 steps",
}
CNN = {"text_classification.network": "cnn", "cnn.width": 12, "cnn.maps": 8, "cnn.dropout": 0.1}
SAVED = tokenizers.Characters(LETTERS).saved()


def task_of(kind, classes=("one", "two", "three"), **overrides):
    config = default_config(kind)
    of_text = {"data.source": "table" if kind == "text_classification" else "text"}
    config.update_from_flattened_dict(TINY | of_text | {k.replace("__", "."): v for k, v in overrides.items()})
    reset_unread(config)
    validate(config.to_dict())
    context = config.data.context
    windows = window_features(context, False, V, SAVED)
    features = windows if kind == "masked_language_modeling" else text_features(context, V, SAVED, classes)
    return make_task(config.to_dict(), Description(features, 100))


def started(task, seed):
    """The first state; compiled, since op by op takes seconds."""
    return jax.jit(lambda key: first_state(task, key))(jax.random.key(seed))


def random_params(state, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), state.ema["params"])


def with_params(state, params):
    ema = {"params": params, "batch_stats": {}}
    return dataclasses.replace(
        state, ema=ema, network=dataclasses.replace(state.network, variables=jax.tree.map(jnp.copy, ema))
    )


# ---------------------------------------------------------------------------------------------------------
# Masks.


def masks(key, tokens, valid, **options):
    """Of each text: what is read, and which tokens are to be predicted, bool [B, T]."""
    keys = jax.random.split(key, len(tokens))
    hidden, at, counts = jax.vmap(lambda *row: mask_tokens(*row, V, **options))(keys, tokens, valid)
    chosen = np.zeros(tokens.shape, bool)
    for row in range(len(tokens)):
        chosen[row, np.asarray(at[row])[np.asarray(counts[row])]] = True
    assert chosen.sum() == counts.sum()  # none twice
    return np.asarray(hidden), chosen


def test_masks_by_counting():
    shape = (200, 500)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, V, shape), jnp.int32)
    valid = jnp.arange(500)[None] < jnp.arange(200)[:, None] + 300
    hidden, chosen = masks(jax.random.key(0), tokens, valid, probability=0.15, mask=0.8, other=0.1)
    there = np.asarray(valid)
    assert not chosen[~there].any()
    np.testing.assert_array_equal(hidden[~chosen], np.asarray(tokens)[~chosen])
    np.testing.assert_array_equal(chosen.sum(axis=1), np.round(np.float32(0.15) * there.sum(axis=1).astype(np.float32)))

    def near(share, expected, count):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / count)

    masked, same = hidden == V + MASK, hidden == tokens
    near(masked[chosen].mean(), 0.8, chosen.sum())
    # A random token is the original one in 1 of V cases.
    near(same[chosen].mean(), 0.1 + 0.1 / V, chosen.sum())
    replaced = hidden[chosen & ~masked & ~same]
    assert set(replaced) == set(range(V))
    # Any two tokens alike: both of neighbours are chosen as often as k (k - 1) of n (n - 1) pairs.
    number, length = chosen.sum(axis=1), there.sum(axis=1)
    pairs = (chosen[:, :-1] & chosen[:, 1:]).sum()
    expected = (number * (number - 1) / length).sum()
    assert abs(pairs - expected) < 4 * np.sqrt(expected)
    # What becomes of one says nothing of the next one.
    both = chosen[:, :-1] & chosen[:, 1:]
    near(masked[:, 1:][both & masked[:, :-1]].mean(), 0.8, (both & masked[:, :-1]).sum())
    # Every position, and every token, alike.
    first, rest = chosen[:, 0].mean(), chosen[:, 1:300].mean()
    assert abs(first - rest) < 4 * np.sqrt(0.15 * 0.85 / 200)
    for token in range(V):
        own = there & (np.asarray(tokens) == token)
        near(chosen[own].mean(), 0.15, own.sum())


def test_short_texts_have_a_mask_and_empty_ones_none():
    tokens, lengths = jnp.zeros((4, 20), jnp.uint8), jnp.array([0, 1, 3, 20])
    hidden, chosen = masks(
        jax.random.key(0), tokens, jnp.arange(20)[None] < lengths[:, None], probability=0.15, mask=1.0, other=0.0
    )
    assert chosen.sum(axis=1).tolist() == (hidden == V + MASK).sum(axis=1).tolist() == [0, 1, 1, 3]


def test_cls_comes_first_and_is_never_masked():
    tokens, valid = jnp.zeros((2, 3), jnp.uint8), jnp.array([[True, True, False], [False] * 3])
    hidden, _ = masks(jax.random.key(0), tokens, valid, probability=0.999, mask=1.0, other=0.0)
    inputs, seen = with_cls(jnp.asarray(hidden), valid, V)
    assert inputs.tolist() == [[V + CLS, V + MASK, V + MASK, 0], [V + CLS, 0, 0, 0]]
    assert seen.tolist() == [[True, True, True, False], [True, False, False, False]]


def test_words_are_dropped_by_counting():
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, V, (100, 400)), jnp.uint8)
    valid = jnp.arange(400)[None] < jnp.full((100, 1), 300)
    hidden = np.asarray(hide_some(jax.random.key(0), tokens, valid, V, 0.1))
    masked = hidden == V + MASK
    np.testing.assert_array_equal(hidden[~masked], np.asarray(tokens)[~masked])
    assert not masked[:, 300:].any()
    assert abs(masked[:, :300].mean() - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 30_000)


def test_each_step_draws_its_own_masks_and_the_loss_counts_the_chosen_ones():
    task = task_of("masked_language_modeling", masked_language_modeling__probability=0.4, accumulate=2)
    alone = task_of("masked_language_modeling", masked_language_modeling__probability=0.4)
    state = started(task, 0)
    state = with_params(state, random_params(state))
    rng = np.random.default_rng(1)
    tokens = jnp.asarray(rng.integers(0, V, (1, 4, 9)), jnp.uint8)
    valid = jnp.asarray(np.arange(9)[None, None] < np.array([9, 4, 9, 1])[None, :, None])
    batch, key = {"tokens": tokens, "valid": valid}, jax.random.key(2)
    found = [jax.jit(t.train_step)(state, batch, key)[1] for t in (task, alone)]
    np.testing.assert_allclose(found[0]["loss/train"], found[1]["loss/train"], rtol=1e-5)
    np.testing.assert_allclose(found[0]["gradient_norm/network"], found[1]["gradient_norm/network"], rtol=1e-4)
    hidden, chosen = masks(named_key(key, "mask", 0), tokens[0], valid[0], probability=0.4, mask=0.8, other=0.1)
    inputs, seen = with_cls(jnp.asarray(hidden), valid[0], V)
    logits = np.float64(task.model.apply({"params": state.ema["params"]}, inputs, valid=seen)[0])[:, 1:]
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(logits, np.asarray(tokens[0], int)[..., None], -1)[..., 0]
    np.testing.assert_allclose(found[1]["loss/train"], losses[chosen].mean(), rtol=1e-4)
    later = dataclasses.replace(state, step=state.step + 1)
    assert jax.jit(alone.train_step)(later, batch, key)[1]["loss/train"] != found[1]["loss/train"]


def test_evaluation_hides_the_same_tokens_in_any_batch_and_shows_none_of_them(monkeypatch):
    task = task_of("masked_language_modeling", masked_language_modeling__probability=0.4)
    state = started(task, 0)
    state = with_params(state, random_params(state))
    tokens = jnp.asarray(np.random.default_rng(3).integers(0, V, (6, 9)), jnp.uint8)

    def sums(rows, size):
        rows, mask = jnp.pad(rows, ((0, size - len(rows)), (0, 0))), jnp.arange(size) < len(rows)
        return jax.jit(task.eval_step)(state, {"tokens": rows, "valid": jnp.ones(rows.shape, bool), "mask": mask})

    whole, parts = sums(tokens, 6), [sums(tokens[i : i + 1], 4) for i in range(6)]
    for name in whole:
        np.testing.assert_allclose(whole[name], sum(part[name] for part in parts), rtol=1e-5)
    assert 0 < float(whole["count"]) < 6 * 9
    # A net that is right where it reads [MASK] is right each time.
    read = lambda self, variables, hidden, tokens, valid, at: (  # noqa: E731
        2 * [(jnp.take_along_axis(hidden, at, axis=1) == V + MASK).astype(jnp.float32)]
    )
    monkeypatch.setattr(type(task), "_losses", read)
    masked = sums(tokens, 6)
    assert float(masked["accuracy"]) == float(masked["count"]) == float(whole["count"])


def test_a_preview_marks_hidden_tokens_and_shows_the_first_batch(monkeypatch):
    task = task_of("masked_language_modeling", masked_language_modeling__probability=0.4)
    state, key = started(task, 0), jax.random.key(0)
    step = jax.jit(task.train_step)
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, V, (1, 2, 9)), jnp.uint8)
    batch = {"tokens": tokens, "valid": jnp.asarray(np.arange(9) < np.array([[9], [5]]))[None]}
    state = step(state, batch, key)[0]
    state = step(state, {**batch, "tokens": tokens[..., ::-1]}, key)[0]
    right = lambda self, variables, hidden, valid, at: jax.nn.one_hot(  # noqa: E731
        jnp.take_along_axis(state.tokens, at, axis=1) if valid is state.valid else at, V + 2
    )
    monkeypatch.setattr(type(task), "_logits", right)
    texts = task.show(np.asarray(task.preview(state, key))).texts
    plain = ["".join(LETTERS[t] for t in row[:length]) for row, length in zip(tokens[0], (9, 5), strict=True)]
    assert [text.replace("[", "").replace("]", "") for text in texts] == 2 * plain
    assert [text.count("[") for text in texts] == 2 * [4, 2]  # 0.4 of 9, of 5
    assert task.show([[[0, 1, 2, 3], [1, 1, 1, 0], [-1, 2, 2, -1]]]).texts == ("a[c|b][c]",)


# ---------------------------------------------------------------------------------------------------------
# Classification.


def weights_of(state):
    return {name: x for name, x in flat(state).items() if WEIGHTS & set(name.split("/"))}


def test_a_classifier_takes_over_an_encoder_but_for_its_head():
    pretrained = task_of("masked_language_modeling", data__context=5)
    trained = started(pretrained, 0)
    trained = with_params(trained, random_params(trained, 4))
    task = task_of("text_classification")
    fresh = started(task, 1)
    moved = task.transfer(weights_of(trained), fresh, config={"task": "masked_language_modeling"}, class_names=())
    assert moved.keys() == weights_of(fresh).keys()
    assert all(moved[name].shape == x.shape for name, x in weights_of(fresh).items())
    for part in ("ema", "network/variables"):
        np.testing.assert_array_equal(moved[f"{part}/params/token_embedding"], trained.ema["params"]["token_embedding"])
        np.testing.assert_array_equal(moved[f"{part}/params/head/kernel"], np.zeros((16, 3)))
        # [CLS] and 6 tokens of windows of 5 + 1.
        np.testing.assert_array_equal(
            moved[f"{part}/params/position_embedding"][:7], trained.ema["params"]["position_embedding"]
        )
    with pytest.raises(UserError, match="needs a masked language model's or a text classifier's"):
        task.transfer({}, fresh, config={"task": "gan"}, class_names=())
    embedding = {"ema/params/token_embedding": jnp.zeros((V, 16))}
    with pytest.raises(UserError, match="init_from is a run of language_modeling, and this needs a masked"):
        task.transfer(embedding, fresh, config={"task": "language_modeling"}, class_names=())


def test_a_classifiers_head_is_matched_by_name():
    task, other = task_of("text_classification"), task_of("text_classification", classes=("two", "three", "one"))
    trained = started(task, 0)
    trained = with_params(trained, random_params(trained, 5))
    fresh = started(other, 1)
    moved = other.transfer(
        weights_of(trained), fresh, config={"task": "text_classification"}, class_names=task.class_names
    )
    state = with_params(fresh, jax.tree.map(jnp.copy, trained.ema["params"]))
    state.ema["params"]["head"] = {n: moved[f"ema/params/head/{n}"] for n in ("kernel", "bias")}
    texts = ["abc", "hgfedcba"]
    np.testing.assert_allclose(other.classify(state, texts), task.classify(trained, texts)[:, [1, 2, 0]], rtol=1e-5)
    with pytest.raises(UserError, match="init_from has the classes one, two, three; here they are a, b"):
        task_of("text_classification", classes=("a", "b")).transfer(
            weights_of(trained), fresh, config={"task": "text_classification"}, class_names=task.class_names
        )


def test_probabilities_do_not_depend_on_the_other_texts_and_padding_is_not_seen(caplog):
    task = task_of("text_classification")
    state = started(task, 0)
    state = with_params(state, random_params(state, 6))
    texts = ["a", "abcdefgh", "abcdefghiii", "hgf"]
    together = task.classify(state, texts, batch_size=4)
    assert [line.getMessage() for line in caplog.records] == [
        "1 of 4 texts have more than the 8 tokens of data.context and are cut, first text 3"
    ]
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([task.classify(state, [t], 1) for t in texts]), rtol=1e-4)
    np.testing.assert_allclose(together[1], together[2], rtol=1e-6)  # cut to the context
    short = task_of("text_classification", data__context=3, transformer__position="none")
    long = task_of("text_classification", transformer__position="none")
    params = random_params(started(short, 0), 7)
    results = [t.classify(with_params(started(t, 0), params), ["abc"]) for t in (short, long)]
    np.testing.assert_allclose(*results, rtol=1e-5)
    with pytest.raises(UserError, match="lacks 'Z'"):
        task.classify(state, ["Z"])


def test_a_classifier_learns():
    """Texts whose class is their first letter, and a linear probe that leaves all else as it was."""
    task = task_of("text_classification", duration="150 steps")
    rng = np.random.default_rng(8)
    tokens = rng.integers(0, 3, (150, 4, 8))
    batches = [
        {
            "tokens": jnp.asarray(rows[None], jnp.uint8),
            "valid": jnp.ones((1, 4, 8), bool),
            "label": jnp.asarray(rows[None, :, 0], jnp.int32),
        }
        for rows in tokens
    ]
    state, step = started(task, 0), jax.jit(task.train_step)
    accuracies = []
    for batch in batches:
        state, metrics, _ = step(state, batch, jax.random.key(1))
        accuracies.append(float(metrics["accuracy/train"]))
    assert np.mean(accuracies[:10]) < 0.7
    assert np.mean(accuracies[-20:]) == 1
    probe = task_of("text_classification", init_from="elsewhere", text_classification__only_head=True)
    before = started(probe, 0)
    after, _, _ = jax.jit(probe.train_step)(before, batches[0], jax.random.key(1))
    changed = {
        name for name, x in flat(before.network.variables).items() if (flat(after.network.variables)[name] != x).any()
    }
    assert changed == {"params/head/kernel", "params/head/bias"}


def test_convolutions_learn_what_order_means():
    """'ab' against 'ba' among other letters: a bag of words cannot tell; and padding is not seen."""
    task = task_of("text_classification", ("ab", "ba"), **CNN, duration="150 steps")
    rng = np.random.default_rng(9)
    state, step = started(task, 0), jax.jit(task.train_step)
    accuracies = []
    for _ in range(150):
        tokens, label = rng.integers(2, V, (16, 8)), rng.integers(0, 2, 16)
        at = rng.integers(0, 7, 16)
        tokens[np.arange(16), at], tokens[np.arange(16), at + 1] = label, 1 - label
        batch = {
            "tokens": jnp.asarray(tokens[None], jnp.uint8),
            "valid": jnp.ones((1, 16, 8), bool),
            "label": jnp.asarray(label[None], jnp.int32),
        }
        state, metrics, _ = step(state, batch, jax.random.key(1))
        accuracies.append(float(metrics["accuracy/train"]))
    assert np.mean(accuracies[:10]) < 0.7
    assert np.mean(accuracies[-30:]) > 0.97
    longer = task_of("text_classification", ("ab", "ba"), **CNN, data__context=13)
    texts = ["cab", "ba", "dabcdefg"]
    np.testing.assert_allclose(longer.classify(state, texts), task.classify(state, texts), rtol=1e-5)


def test_words_are_refused_where_text_has_a_probability():
    with pytest.raises(UserError, match="words lose whatever is not among them"):
        task_of("language_modeling", data__tokenizer="words")


def test_classification_needs_two_classes():
    with pytest.raises(UserError, match="at least two classes, and the data set has 1"):
        task_of("text_classification", classes=("only",))


def test_shares_of_masks_are_not_more_than_all():
    with pytest.raises(UserError, match=r"random_share=0\.5 are more than all: .*random_share=0\.2"):
        task_of("masked_language_modeling", masked_language_modeling__random_share=0.5)
