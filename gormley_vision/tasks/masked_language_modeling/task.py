"""Encoder-only pre-training: some tokens are hidden, and predicted from all others (BERT, arXiv:1810.04805)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gormley_vision.data.tokenizers import Tokenizer
from gormley_vision.errors import UserError
from gormley_vision.models.transformer import Transformer
from gormley_vision.randomness import named_key
from gormley_vision.samples import Texts
from gormley_vision.tasks.single_network import Arrays, State, Training, with_positions
from gormley_vision.tasks.special_tokens import mask_tokens, with_cls

SHOWN = 4  # texts of a preview


@flax.struct.dataclass
class MaskedState(State):
    """The state of a single network, and the first texts of the first batch, for previews."""

    tokens: jax.Array  # int32 [4, T]
    valid: jax.Array  # bool [4, T]


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModeling:
    """The task; the model maps [CLS] and tokens [B, T + 1] to logits [B, T + 1, V + 2]."""

    model: Transformer
    training: Training
    tokenizer: Tokenizer
    vocabulary: int  # V, without special tokens
    probability: float
    mask_share: float
    random_share: float

    afterwards = (
        "fine-tune it: python train.py --config=configs/finetune_text.py --config.init_from={workdir} "
        "--config.data.tokenizer={workdir}/tokenizer.json"
    )

    def init(self, key: jax.Array) -> MaskedState:
        """Return a fresh state, a function of the key only."""
        tokens = jnp.zeros((1, self.model.context), jnp.int32)
        state = self.training.start(self.model.init(named_key(key, "init/network"), tokens)["params"])
        shown = jnp.zeros((SHOWN, self.model.context - 1), jnp.int32)
        return MaskedState(state.step, state.network, state.ema, shown, shown > 0)

    def train_step(self, state: MaskedState, batch: Arrays, key: jax.Array) -> tuple[MaskedState, Arrays, Arrays]:
        """Take one gradient step on 'tokens' [1, m, T] and 'valid' bool [1, m, T]; each step draws its own masks."""
        tokens, valid = batch["tokens"][0], batch["valid"][0]
        keys = jax.random.split(named_key(key, "mask", state.step), len(tokens))
        hidden, at, counts = self._mask(keys, tokens, valid, self.mask_share, self.random_share)

        def loss(params: Any, parts: tuple[jax.Array, ...], key: jax.Array) -> tuple[jax.Array, Arrays]:
            *inputs, share = parts
            losses, right = self._losses({"params": params}, *inputs, train=True, rngs={"dropout": key})
            return jnp.sum(losses * share), {"accuracy/train": jnp.sum(right * share)}

        parts = (hidden, tokens, valid, at, self.training.shares(counts))
        after, metrics, checks = self.training.step(state, parts, key, loss)
        first = [
            jnp.resize(x, (SHOWN, *x.shape[1:])) for x in (tokens.astype(jnp.int32), valid)
        ]  # repeats a small batch
        shown = [jnp.where(state.step == 0, *pair) for pair in zip(first, (state.tokens, state.valid), strict=True)]
        return MaskedState(after.step, after.network, after.ema, *shown), metrics, checks

    def _mask(
        self, keys: jax.Array, tokens: jax.Array, valid: jax.Array, mask: float, other: float
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return `mask_tokens` of each text: tokens [B, T] to read, places [B, K], which of them count."""

        return jax.vmap(
            lambda key, tokens, valid: mask_tokens(
                key, tokens, valid, self.vocabulary, probability=self.probability, mask=mask, other=other
            )
        )(keys, tokens, valid)

    def _losses(
        self, variables: Any, hidden: jax.Array, tokens: jax.Array, valid: jax.Array, at: jax.Array, **options: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Return nats of the original tokens `at` [B, K], and whether each is the model's first choice."""
        logits = self._logits(variables, hidden, valid, at, **options)
        targets = jnp.take_along_axis(tokens.astype(jnp.int32), at, axis=1)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses, jnp.argmax(logits, axis=-1) == targets

    def _logits(self, variables: Any, hidden: jax.Array, valid: jax.Array, at: jax.Array, **options: Any) -> jax.Array:
        inputs, valid = with_cls(hidden, valid, self.vocabulary)
        logits, _ = self.model.apply(variables, inputs, valid=valid, at=at + 1, **options)
        return logits

    def eval_step(self, state: State, batch: Arrays) -> Arrays:
        """Return sums over hidden tokens: nats 'loss', 'accuracy', and their 'count'.

        Which tokens are hidden depends on the text alone, and all of them are read as [MASK]: none shows itself.
        """
        tokens, valid = batch["tokens"], batch["valid"]
        draw = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(0), _number_of(row)))(tokens)
        hidden, at, counts = self._mask(draw, tokens, valid, 1.0, 0.0)
        losses, right = self._losses(state.ema, hidden, tokens, valid, at)
        there = (counts & batch["mask"][:, None]).astype(jnp.float32)
        return {"loss": jnp.sum(losses * there), "accuracy": jnp.sum(right * there), "count": jnp.sum(there)}

    def preview(self, state: MaskedState, key: jax.Array) -> jax.Array:
        """Return of each shown text its tokens, which are valid, and guesses where tokens were hidden: [4, 3, T].

        Elsewhere a guess is -1.
        """
        keys = jax.random.split(named_key(key, "preview"), SHOWN)
        hidden, at, counts = self._mask(keys, state.tokens, state.valid, 1.0, 0.0)
        guesses = jnp.argmax(self._logits(state.ema, hidden, state.valid, at)[..., : self.vocabulary], axis=-1)
        rows = jnp.arange(SHOWN)[:, None]
        guessed = jnp.full(hidden.shape, -1).at[rows, at].set(jnp.where(counts, guesses, -1))
        return jnp.stack([state.tokens, state.valid.astype(jnp.int32), guessed], axis=1)

    def show(self, preview: Any) -> Texts:
        """Return the texts; a hidden token is [shown so] where the guess is right, and [guess|token] where not."""
        return Texts(tuple(self._marked(*row) for row in preview))

    def _marked(self, tokens: Any, valid: Any, guesses: Any) -> str:
        known, pieces = [int(token) for token, there in zip(tokens, valid, strict=True) if there], []
        for i, token in enumerate(known):
            before = self.tokenizer.decode(known[:i])

            def piece(token: int, before: str = before, i: int = i) -> str:
                return self.tokenizer.decode([*known[:i], token])[len(before) :]

            guess = int(guesses[i])
            wrong = f"{piece(guess)}|" if guess not in (-1, token) else ""
            pieces.append(piece(token) if guess == -1 else f"[{wrong}{piece(token)}]")
        return "".join(pieces)

    def transfer(
        self, weights: Arrays, state: State, *, config: Mapping[str, Any], class_names: tuple[str, ...]
    ) -> Arrays:
        """Return another run's weights, with learned positions for this context.

        Raises:
            UserError: the other run has no such network.
        """
        del class_names
        embedding = weights.get("ema/params/token_embedding")
        if embedding is None or len(embedding) != self.model.vocabulary:  # with [CLS] and [MASK]
            needed = "a masked language model's"
            raise UserError(f"init_from is a run of {config['task']}, and this needs {needed}: pass its folder")
        return with_positions(weights, state)


def _number_of(tokens: jax.Array) -> jax.Array:
    """Return a number uint32 that depends on each of the tokens [T] and their order."""
    odd = 2 * jnp.arange(tokens.shape[0], dtype=jnp.uint32) * jnp.uint32(2654435769) + 1
    mixed = (tokens.astype(jnp.uint32) + 1) * odd
    return jnp.sum(mixed ^ (mixed >> 15), dtype=jnp.uint32)
