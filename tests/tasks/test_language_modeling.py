"""The language model's task: what its loss counts, exact evaluation, other lengths, and the laws of sampling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import default_config, validate
from gormley_vision.data import text_source, tokenizers
from gormley_vision.data.batches import open_batches
from gormley_vision.data.documents import Document
from gormley_vision.data.features import Description
from gormley_vision.errors import UserError
from gormley_vision.experiment import make_task
from gormley_vision.tasks.language_modeling import generation
from gormley_vision.tasks.language_modeling.generation import Choice, filtered
from gormley_vision.training.evaluation import Evaluation
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import first_state

TINY = {
    "data.source": "text",
    "data.context": 8,
    "data.batch_size": 4,
    "transformer.width": 16,
    "transformer.depth": 2,
    "transformer.mlp": 24,
    "transformer.heads": 2,
    "optimizer.learning_rate": 1e-2,
    "duration": "20 steps",
}
LETTERS = "abcdefgh\n"
TEXT = "".join(np.random.default_rng(0).choice(list(LETTERS), 200))


def task_of(letters=LETTERS, length=100, **overrides):
    config = default_config("language_modeling")
    config.update_from_flattened_dict(TINY | {key.replace("__", "."): value for key, value in overrides.items()})
    validate(config.to_dict())
    saved = tokenizers.Characters(letters).saved()
    features = text_source.window_features(config.data.context, config.data.packing, len(set(letters)), saved)
    return make_task(config.to_dict(), Description(features, length))


def windows(task, seed, count=4, valid=None):
    rng, length = np.random.default_rng(seed), task.model.context + 1
    tokens = jnp.asarray(rng.integers(0, task.model.vocabulary, (1, count, length)), jnp.uint8)
    valid = np.ones((1, count, length), bool) if valid is None else valid
    return {"tokens": tokens, "valid": jnp.asarray(valid), "bytes": jnp.full((1, count), 8, jnp.int32)}


def started(task, seed=0):
    """The first state; compiled, since op by op takes seconds."""
    return jax.jit(lambda key: first_state(task, key))(jax.random.key(seed))


def random_state(task, seed=0):
    """A state whose weights are of a size that matters, in the average as well."""
    state = started(task)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), state.ema["params"])
    ema = {"params": params, "batch_stats": {}}
    network = dataclasses.replace(state.network, variables=jax.tree.map(jnp.copy, ema))
    return dataclasses.replace(state, network=network, ema=ema)


def nats(task, params, tokens):
    """-log softmax of each next token, in float64 from the model's own logits; one window."""
    logits = np.float64(jax.jit(lambda t: task.model.apply({"params": params}, t)[0])(jnp.asarray(tokens)[None, :-1]))[
        0
    ]
    shifted = logits - logits.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(shifted)), np.asarray(tokens)[1:]]


def test_the_loss_is_the_mean_over_predicted_tokens_also_in_microbatches():
    valid = np.ones((1, 4, 9), bool)
    valid[0, 1, 3:] = False
    valid[0, 3, 1:] = False  # nothing to predict
    metrics = []
    for accumulate in (1, 2, 4):
        task = task_of(accumulate=accumulate, optimizer__name="momentum_sgd")
        state = random_state(task)
        batch = windows(task, 1, valid=valid)
        after, found, _ = jax.jit(task.train_step)(state, batch, jax.random.key(0))
        metrics.append((found["loss/train"], found["gradient_norm/network"], after.network.variables["params"]["norm"]))
    losses = [nats(task, state.ema["params"], row)[valid[0, i, 1:]] for i, row in enumerate(batch["tokens"][0])]
    np.testing.assert_allclose(metrics[0][0], np.concatenate(losses).mean(), rtol=1e-5)
    for other in metrics[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), metrics[0], other)


class Words:
    """Documents of these texts."""

    def __init__(self, *texts):
        parts = [text.encode() for text in texts]
        self.documents = [
            Document(f"document {i}", (i,), lambda a, b, part=part: part[a:b], 0, len(part))
            for i, part in enumerate(parts)
        ]


def evaluated(task, source, batch_size=3):
    data = {"placement": "stream", "workers": 0, "batch_size": batch_size, "source": "text", "split": ""}
    batches = open_batches(seed=0, minibatches=1, data=data | {"opened": source})
    evaluation, one = Evaluation(task, batches, 1), make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, batch_size)
    return evaluation(random_state(task), Shardings(one, ()))


@pytest.fixture(autouse=True)
def _opened_as_given(monkeypatch):
    monkeypatch.setattr("gormley_vision.data.batches.open_source", lambda data: data["opened"])


def test_evaluation_is_over_all_of_the_text_and_only_once():
    task, tokenizer = task_of(), tokenizers.Characters(LETTERS)
    source = text_source.TextSource(Words(TEXT).documents, tokenizer, 8, False)
    figures = evaluated(task, source)
    tokens, _ = tokenizer.encode(TEXT)
    params = random_state(task).ema["params"]
    losses = np.concatenate([nats(task, params, tokens[i : i + 9]) for i in range(0, 199, 8)])
    assert len(losses) == 199  # every token but the first, also those of the last window
    np.testing.assert_allclose(figures["eval/loss"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(figures["eval/bits_per_byte"], losses.mean() / np.log(2), rtol=1e-5)


def test_packed_documents_are_evaluated_as_if_alone():
    texts = TEXT[:5], TEXT[5:30], TEXT[30:31], TEXT[31:60]
    tokenizer = tokenizers.Characters(LETTERS)
    options = {"data__packing": True, "data__context": 64}
    task = task_of(**options)
    source = text_source.TextSource(Words(*texts).documents, tokenizer, 64, True)
    figures = evaluated(task, source)
    params = random_state(task).ema["params"]
    losses = np.concatenate([nats(task, params, tokenizer.encode(text)[0]) for text in texts if len(text) > 1])
    np.testing.assert_allclose(figures["eval/loss"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(figures["eval/bits_per_byte"], losses.mean() / np.log(2), rtol=1e-5)


def test_bits_per_byte_do_not_depend_on_the_vocabulary():
    """Of uniform models: log2 V bits a token, over the bytes that it stands for on average."""
    text = "žluťoučký kůň, " * 20
    for tokenizer in (tokenizers.Bytes(), tokenizers.Characters(text), tokenizers.train_byte_pairs([text], 280)):
        source = text_source.TextSource(Words(text).documents, tokenizer, 8, False)
        tokens, sizes = tokenizer.encode(text)
        assert sum(int(example["bytes"]) for example in source) == sizes[1:].sum()
        task = task_of()
        means = {"loss": np.log(tokenizer.size), "accuracy": 0.0, "bytes": sizes[1:].mean()}
        expected = np.log2(tokenizer.size) * (len(tokens) - 1) / (len(text.encode()) - int(sizes[0]))
        np.testing.assert_allclose(task.eval_figures(means)["bits_per_byte"], expected, rtol=1e-6)


def test_training_on_a_repeated_text_learns_it():
    task = task_of(duration="150 steps")
    state, step = started(task), jax.jit(task.train_step)
    tokenizer = tokenizers.Characters(LETTERS)
    row = tokenizer.encode("abcdefgh\n" * 3)[0]
    tokens = jnp.asarray(np.stack([row[i : i + 9] for i in (0, 2, 5, 7)])[None])
    batch = {"tokens": tokens, "valid": jnp.ones(tokens.shape, bool), "bytes": jnp.zeros((1, 4), jnp.int32)}
    losses = []
    for _ in range(150):
        state, metrics, _ = step(state, batch, jax.random.key(1))
        losses.append(float(metrics["loss/train"]))
    assert abs(losses[0] - np.log(9)) < 0.1  # at first it knows nothing
    assert losses[-1] < 0.05
    text = task.sample(state, num=1, seed=0, **options(prompt="abc", length=30, temperature=0.0)).texts[0]
    assert text == ("abcdefgh\n" * 4)[:33]


def options(**changes):
    from gormley_vision.tasks.language_modeling import SAMPLING

    return {name: field.default for name, field in SAMPLING.items()} | changes


@pytest.fixture(scope="module")
def speaker():
    task = task_of(data__context=32, transformer__rope="llama", transformer__position="none")
    return task, random_state(task, 3)


def test_a_text_depends_on_its_seed_and_number_not_on_the_others(speaker, tmp_path):
    task, state = speaker
    many = task.sample(state, num=11, seed=5, **options(length=70)).texts
    assert task.sample(state, num=3, seed=5, **options(length=70)).texts == many[:3]
    assert len(set(many)) == 11
    assert task.sample(state, num=3, seed=6, **options(length=70)).texts != many[:3]
    assert all(len(text) == 70 for text in many)  # longer than the context of 32
    lines = ["a", "abcabcabcabcabc", "hg", "h" * 60]
    (tmp_path / "prompts.txt").write_text("\n".join(lines))
    several = task.sample(state, num=9, seed=5, **options(prompts=str(tmp_path / "prompts.txt"), length=40)).texts
    for i, text in enumerate(several):
        assert text.startswith(lines[i % 4])
    alone = task.sample(state, num=9, seed=5, **options(prompt=lines[1], length=40)).texts
    assert [several[i] for i in (1, 5)] == [alone[i] for i in (1, 5)]
    assert "".join(task.stream(state, seed=5, **options(length=70))) == many[0]


def test_within_the_context_the_cache_changes_nothing(speaker):
    """Greedy text by the cache is that of recomputing everything for each token."""
    task, state = speaker
    text = task.sample(state, num=1, seed=0, **options(prompt="abc", length=24, temperature=0.0)).texts[0]
    tokens = task.tokenizer.encode("abc")[0].tolist()
    for _ in range(24):
        padded = jnp.asarray(tokens + [0] * (32 - len(tokens)))[None]
        logits, _ = jax.jit(task.model.apply)(state.ema, padded)
        tokens.append(int(jnp.argmax(logits[0, len(tokens) - 1])))
    assert text == task.tokenizer.decode(tokens)


def test_a_stop_text_ends_it_and_is_left_out(speaker):
    task, state = speaker
    whole = task.sample(state, num=4, seed=5, **options(length=60)).texts
    stopped = task.sample(state, num=4, seed=5, **options(length=60, stop="a")).texts
    assert stopped == tuple(text.partition("a")[0] for text in whole)
    assert "".join(task.stream(state, seed=5, **options(length=60, stop="a"))) == stopped[0]


def test_a_prompt_that_cannot_be_read_is_refused(speaker, tmp_path):
    task, state = speaker
    with pytest.raises(UserError, match=r"lacks 'Z'"):
        task.sample(state, num=1, seed=0, **options(prompt="aZ"))
    with pytest.raises(UserError, match=r"lacks 'Z'"):  # before anything is printed
        next(task.stream(state, seed=0, **options(prompt="aZ")))
    (tmp_path / "empty").write_text("")
    (tmp_path / "latin").write_bytes(b"ab\xe9")
    for file, message in (("empty", "is empty"), ("latin", "not UTF-8: byte 2")):
        with pytest.raises(UserError, match=message):
            task.sample(state, num=1, seed=0, **options(prompts=str(tmp_path / file)))
    with pytest.raises(UserError, match="leave one out"):
        task.sample(state, num=1, seed=0, **options(prompt="a", prompts=str(tmp_path / "empty")))


PROBABILITIES = np.array([[0.4, 0.1, 0.2, 0.25, 0.05]], np.float32)


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (Choice(), [0, 1, 2, 3, 4]),
        (Choice(top_k=2), [0, 3]),
        (Choice(top_k=99), [0, 1, 2, 3, 4]),
        (Choice(top_p=0.6), [0, 3]),  # 0.4 is too little, and 0.65 is enough
        (Choice(top_p=0.39), [0]),
        (Choice(top_p=0.0), [0]),
        (Choice(min_p=0.3), [0, 2, 3]),  # at least 0.12
        (Choice(min_p=1.0), [0]),
        (Choice(top_k=3, top_p=0.5), [0, 3]),  # of 0.85: 0.47 is too little
        (Choice(temperature=0.5, min_p=0.3), [0, 3]),  # squares: 0.16, 0.01, 0.04, 0.0625, 0.0025
    ],
)
def test_filters_by_hand(choice, kept):
    logits = filtered(jnp.log(PROBABILITIES), choice)
    assert np.flatnonzero(np.isfinite(logits[0])).tolist() == kept
    chosen = np.where(np.isin(np.arange(5), kept), PROBABILITIES[0] ** (1 / choice.temperature), 0)
    np.testing.assert_allclose(jax.nn.softmax(logits)[0], chosen / chosen.sum(), rtol=1e-5)


def test_tokens_are_drawn_with_their_probabilities():
    keys = jax.random.split(jax.random.key(0), 20_000)
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(PROBABILITIES)), (20_000, 5))
    drawn = np.bincount(generation.choose(keys, logits, Choice(temperature=2.0)), minlength=5) / 20_000
    expected = np.sqrt(PROBABILITIES[0]) / np.sqrt(PROBABILITIES[0]).sum()
    assert (np.abs(drawn - expected) < 4 * np.sqrt(expected / 20_000)).all()
    assert (generation.choose(keys[:9], logits[:9], Choice(temperature=0.0)) == 0).all()


@pytest.mark.parametrize("tied", [True, False])
def test_a_longer_context_keeps_the_weights_and_the_rows_of_positions(tied):
    short, long = task_of(language_modeling__tied=tied), task_of(data__context=20, language_modeling__tied=tied)
    trained, fresh = random_state(short), started(long)
    from gormley_vision.training.checkpoints import flat
    from gormley_vision.training.start import WEIGHTS

    weights = {name: x for name, x in flat(trained).items() if WEIGHTS & set(name.split("/"))}
    moved = long.transfer(dict(weights), fresh, config={"task": "language_modeling"}, class_names=())
    for part in ("ema", "network/variables"):
        table = moved[f"{part}/params/position_embedding"]
        np.testing.assert_array_equal(table[:8], weights[f"{part}/params/position_embedding"])
        np.testing.assert_array_equal(table[8:], fresh.ema["params"]["position_embedding"][8:])
    same = [name for name in weights if "position" not in name]
    assert all((moved[name] == weights[name]).all() for name in same)
    with pytest.raises(UserError, match="needs one of language_modeling"):
        long.transfer({"ema/params/x": jnp.zeros(1)}, fresh, config={"task": "gan"}, class_names=())


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ({"transformer__width": 18, "transformer__heads": 4}, "--config.transformer.width="),
        ({"transformer__heads": 4, "transformer__kv_heads": 3}, "--config.transformer.kv_heads="),
        ({"transformer__rope": "llama", "transformer__width": 14}, "--config.transformer.width="),
        ({"transformer__rope": "llama", "transformer__rope_scaling": "ntk"}, "trained_context=256"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_compiles(overrides, advice):
    with pytest.raises(UserError, match=advice):
        task_of(**overrides)


def test_the_coldest_temperature_takes_the_most_probable_token(speaker):
    task, state = speaker
    cold, zero = (
        task.sample(state, num=1, seed=0, **options(prompt="abc", length=9, temperature=t)).texts for t in (1e-42, 0.0)
    )
    assert cold == zero


def test_previews_are_texts_that_begin_with_the_prompt(speaker):
    task, state = speaker
    task = dataclasses.replace(task, prompt="abc")
    texts = task.show(np.asarray(jax.jit(task.preview)(state, jax.random.key(0)))).texts
    assert len(set(texts)) == 4
    assert all(text.startswith("abc") and len(text) == 32 for text in texts)


@pytest.mark.parametrize("context", [1, 2, 5])
def test_tiny_contexts_move_on_too(context):
    task = task_of(data__context=context)
    state = random_state(task)
    texts = task.sample(state, num=2, seed=0, **options(prompt="abcdefg", length=9)).texts
    assert all(text.startswith("abcdefg") and len(text) == 16 for text in texts)
    assert "".join(task.stream(state, seed=0, **options(prompt="abcdefg", length=9))) == texts[0]


def test_pieces_of_a_stream_are_whole_characters_and_keep_spaces():
    """With byte pairs a character may be two tokens; and some tokenizers drop the space that begins a text."""
    import tokenizers as library

    from gormley_vision.data.tokenizers import HuggingFace

    words = library.Tokenizer(library.models.WordLevel({"▁to": 0, "▁be": 1}, unk_token="▁to"))
    words.pre_tokenizer = library.pre_tokenizers.Metaspace()
    words.decoder = library.decoders.Metaspace()
    tokenizer = HuggingFace(words.to_str())
    assert tokenizer.decode([1, 0]) == "be to"
    prompt = tokenizer.encode("to be")[0]
    assert generation._after(tokenizer, prompt, np.array([1, 0])) == " be to"
    task = task_of(letters=LETTERS)
    task = dataclasses.replace(
        task, tokenizer=tokenizers.Bytes(), model=dataclasses.replace(task.model, vocabulary=256)
    )
    state = random_state(task)
    pieces = list(task.stream(state, seed=1, **options(length=40)))
    assert "".join(pieces) == task.sample(state, num=1, seed=1, **options(length=40)).texts[0]
