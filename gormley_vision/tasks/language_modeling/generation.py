"""Text from a decoder, token by token, with a cache of keys and values.

Text i depends on the seed, i, its prompt and the options, but not on how many there are, nor on the other prompts:
every call runs the same two programs, on `BATCH` rows with prompts padded to one length, and each row has its own
random key for each token. A row whose text outgrows the context continues from the second half of it.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.data.tokenizers import Tokenizer
from gormley_vision.errors import UserError
from gormley_vision.files import read_lines, typed_text, user_path
from gormley_vision.layers.blocks import Cache
from gormley_vision.models.transformer import Transformer
from gormley_vision.randomness import named_key, run_key

if TYPE_CHECKING:
    from gormley_vision.tasks.language_modeling.task import LanguageModeling

BATCH = 8  # rows of every call
CHUNK = 16  # tokens of a call, at most


class Choice(NamedTuple):
    """How a token is chosen from logits; the filters apply to softmax(logits / temperature), in this order."""

    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0  # Holtzman et al. 2019 (arXiv:1904.09751): the token that reaches p is still in
    min_p: float = 0.0  # Nguyen et al. 2024 (arXiv:2407.01082)


COLDEST = 1e-6  # a lower temperature chooses no differently, and its quotients overflow


def filtered(logits: jax.Array, choice: Choice) -> jax.Array:
    """Return logits [..., V] of the distribution to draw from: -infinity where a filter removes a token.

    The most probable token is always kept. All filters are over the same ranking, so ties are kept or removed together.
    """
    logits = logits / max(choice.temperature, COLDEST)
    ranked = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(ranked, axis=-1)
    least = ranked[..., -1:]
    if 0 < choice.top_k < logits.shape[-1]:
        least = ranked[..., choice.top_k - 1, None]
        probabilities = jnp.where(ranked >= least, probabilities, 0)
        probabilities = probabilities / probabilities.sum(axis=-1, keepdims=True)
    if choice.top_p < 1:
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept = jnp.sum((before < choice.top_p) & (ranked >= least), axis=-1, keepdims=True)
        least = jnp.take_along_axis(ranked, jnp.maximum(kept - 1, 0), axis=-1)
    if choice.min_p > 0:
        least = jnp.maximum(least, ranked[..., :1] + jnp.log(jnp.float32(choice.min_p)))
    return jnp.where(logits >= jnp.minimum(least, ranked[..., :1]), logits, -jnp.inf)


def choose(keys: jax.Array, logits: jax.Array, choice: Choice) -> jax.Array:
    """Draw a token int32 [B] from each row of logits [B, V] by its own key [B]."""
    if not choice.temperature:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(keys, filtered(logits, choice)).astype(jnp.int32)


class Rows(NamedTuple):
    """Texts in progress, a row each: the newest token, its position, the key, and how many were generated."""

    token: jax.Array  # int32 [B]
    position: jax.Array  # int32 [B]
    keys: jax.Array  # [B]
    generated: jax.Array  # int32 []: how many


def continued(
    model: Transformer, choice: Choice, tokens: int, variables: Any, cache: Cache, rows: Rows
) -> tuple[Cache, Rows, jax.Array]:
    """Generate `tokens` more of each row. `cache` is of the tokens before the newest.

    Returns the cache, the rows, and the tokens int32 [B, tokens].
    """

    def one(carried: tuple[Cache, Rows], _: None) -> tuple[tuple[Cache, Rows], jax.Array]:
        cache, rows = carried
        logits, cache = _apply(model, variables, rows.token[:, None], positions=rows.position[:, None], cache=cache)
        keys = jax.vmap(jax.random.fold_in, (0, None))(rows.keys, rows.generated)
        token = choose(keys, logits[:, 0], choice)
        return (cache, Rows(token, rows.position + 1, rows.keys, rows.generated + 1)), token

    (cache, rows), generated = jax.lax.scan(one, (cache, rows), None, tokens)
    return cache, rows, generated.T


def read(model: Transformer, variables: Any, tokens: jax.Array, anew: jax.Array, cache: Cache) -> Cache:
    """Return the cache with the tokens [B, T] of those rows that are read anew, bool [B].

    Padding after a row's own tokens is written, too, but a row writes each position again before it reads it.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    _, written = _apply(model, variables, tokens, positions=positions, cache=cache)
    anew = anew[None, :, None, None, None]
    return Cache(*(jnp.where(anew, after, before) for before, after in zip(cache, written, strict=True)))


def _apply(model: Transformer, *inputs: Any, **options: Any) -> Any:
    return model.apply(*inputs, **options)  # its type allows for more than a module without mutable collections returns


def prompt_tokens(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Return the tokens of a prompt, int32 [T], T > 0: of a line's end if it is empty, or else token 0."""
    if text:
        return tokenizer.encode(text)[0].astype(np.int32)
    try:
        return tokenizer.encode("\n")[0].astype(np.int32)
    except UserError:
        return np.zeros(1, np.int32)


def preview(model: Transformer, variables: Any, prompt: np.ndarray, rows: int, key: jax.Array) -> jax.Array:
    """Return `rows` texts that begin with the prompt, int32 [rows, context], in one traced program."""
    prompt = prompt[: model.context // 2 or 1]
    tokens = jnp.broadcast_to(jnp.asarray(prompt)[None], (rows, len(prompt)))
    cache = read(model, variables, tokens, jnp.ones(rows, bool), model.empty_cache(rows, model.context))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
    start = Rows(tokens[:, -1], jnp.full(rows, len(prompt) - 1), keys, jnp.zeros((), jnp.int32))
    _, _, generated = continued(model, Choice(), model.context - len(prompt), variables, cache, start)
    return jnp.concatenate([tokens, generated], axis=1)


class Generator:
    """Generates rows in chunks, each row's context moving on by half when it is full."""

    def __init__(self, model: Transformer, variables: Any, choice: Choice) -> None:
        self.chunk = max(1, min(CHUNK, model.context // 4))
        self._model, self._variables = model, variables
        self._read = jax.jit(partial(read, model))
        self._continue = jax.jit(partial(continued, model, choice, self.chunk), donate_argnums=1)

    def __call__(self, prompts: list[np.ndarray], keys: jax.Array) -> Iterator[np.ndarray]:
        """Yield the next tokens of each of `BATCH` rows, int32 [BATCH, chunk], forever."""
        texts, context = [prompt.tolist() for prompt in prompts], self._model.context
        cache, count = self._model.empty_cache(len(texts), context), jnp.zeros((), jnp.int32)
        sizes = np.array([len(text) for text in texts])
        starts, anew = np.zeros_like(sizes), np.ones(len(texts), bool)
        while True:
            # Where each row's context begins: as far back as possible, until there is no room for another chunk.
            full = sizes - starts + self.chunk > context
            starts, anew = np.where(full, sizes - max(1, context // 2), starts), anew | full
            lengths = sizes - starts
            if anew.any():
                padded = np.zeros((len(texts), context), np.int32)
                for row, text in enumerate(texts):
                    padded[row, : lengths[row]] = text[starts[row] :]
                cache, anew = self._read(self._variables, padded, anew, cache), np.zeros(len(texts), bool)
            token = np.array([text[-1] for text in texts], np.int32)
            rows = Rows(jnp.asarray(token), jnp.asarray(lengths - 1, jnp.int32), keys, count)
            cache, (_, _, _, count), tokens = self._continue(self._variables, cache, rows)
            generated = np.asarray(tokens)
            yield generated
            for text, new in zip(texts, generated, strict=True):
                text.extend(new.tolist())
            sizes = sizes + self.chunk


def generate(
    task: "LanguageModeling",
    variables: Any,
    *,
    num: int,
    seed: int,
    prompt: str,
    prompts: str,
    length: int,
    stop: str,
    **choice: Any,
) -> list[str]:
    """Return `num` texts of the prompts in turn, each with `length` more tokens, or up to `stop`."""
    given = _given(prompt, prompts)
    encoded = [prompt_tokens(task.tokenizer, text) for text in given]
    generator, texts = Generator(task.model, variables, Choice(**choice)), []
    for first in range(0, num, BATCH):
        ids = np.arange(first, first + BATCH)
        rows = [encoded[i % len(encoded)] for i in ids]
        new = np.zeros((BATCH, 0), np.int32)
        for chunk in generator(rows, _keys(seed, ids)):
            new = np.concatenate([new, chunk], axis=1)
            ended = stop and all(stop in task.tokenizer.decode(row.tolist()) for row in new[: num - first])
            if new.shape[1] >= length or ended:
                break
        for i, prompted, row in zip(ids[: num - first], rows, new[:, :length], strict=False):
            text = _after(task.tokenizer, prompted, row)
            texts.append(given[i % len(given)] + (text.partition(stop)[0] if stop else text))
    return texts


def stream(
    task: "LanguageModeling",
    variables: Any,
    *,
    seed: int,
    prompt: str,
    prompts: str,
    length: int,
    stop: str,
    **choice: Any,
) -> Iterator[str]:
    """Yield the pieces of what `generate` returns as its first text."""
    given = _given(prompt, prompts)[0]
    prompted, shown = prompt_tokens(task.tokenizer, given), 0
    yield given
    new = np.zeros(0, np.int32)
    for chunk in Generator(task.model, variables, Choice(**choice))([prompted] * BATCH, _keys(seed, np.arange(BATCH))):
        new = np.concatenate([new, chunk[0]])
        text = _after(task.tokenizer, prompted, new[:length])
        text, found, _ = text.partition(stop) if stop else (text, "", "")
        ends = bool(found) or len(new) >= length
        # What may still become another character, or the beginning of the stop text, waits.
        safe = len(text) if ends else len(text.rstrip("\ufffd")) - max(0, len(stop) - 1)
        if safe > shown:
            yield text[shown:safe]
            shown = safe
        if ends:
            return


def _after(tokenizer: Tokenizer, prompt: np.ndarray, new: np.ndarray) -> str:
    """Return the text of new tokens as it follows the prompt: on their own some tokenizers drop a space before them."""
    before, whole = (tokenizer.decode(tokens.tolist()) for tokens in (prompt, np.concatenate([prompt, new])))
    return whole.removeprefix(before) if whole.startswith(before) else tokenizer.decode(new.tolist())


def _keys(seed: int, ids: np.ndarray) -> jax.Array:
    return jax.vmap(lambda i: named_key(run_key(seed), "sample", i))(jnp.asarray(ids))


def _given(prompt: str, file: str) -> list[str]:
    """Return the one prompt, or those of a file."""
    if not file:
        return [typed_text(prompt, "--prompt")]
    if prompt:
        raise UserError("--prompt and --prompts are both given: leave one out")
    path = user_path(file)
    lines = read_lines(path)
    if not lines:
        raise UserError(f"--prompts={path} is empty: write a prompt in each line")
    return lines
