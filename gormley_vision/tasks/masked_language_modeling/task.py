"""Encoder-only pre-training: some tokens are hidden, and predicted from all others (BERT, arXiv:1810.04805)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gormley_vision.errors import UserError
from gormley_vision.models.transformer import Transformer
from gormley_vision.randomness import named_key
from gormley_vision.tasks.single_network import Arrays, State, Training, with_positions
from gormley_vision.tasks.special_tokens import mask_tokens, with_cls


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModeling:
    """The task; the model maps [CLS] and tokens [B, T + 1] to logits [B, T + 1, V + 2]."""

    model: Transformer
    training: Training
    vocabulary: int  # V, without special tokens
    probability: float
    mask_share: float
    random_share: float

    afterwards = (
        "fine-tune it: python train.py --config=configs/finetune_text.py --config.init_from={workdir} "
        "--config.data.tokenizer={workdir}/tokenizer.json"
    )

    def init(self, key: jax.Array) -> State:
        """Return a fresh state, a function of the key only."""
        tokens = jnp.zeros((1, self.model.context), jnp.int32)
        return self.training.start(self.model.init(named_key(key, "init/network"), tokens)["params"])

    def train_step(self, state: State, batch: Arrays, key: jax.Array) -> tuple[State, Arrays, Arrays]:
        """Take one gradient step on 'tokens' [1, m, T] and 'valid' bool [1, m, T]; each step draws its own masks."""
        tokens, valid = batch["tokens"][0], batch["valid"][0]
        keys = jax.random.split(named_key(key, "mask", state.step), len(tokens))
        hidden, at, counts = self._mask(keys, tokens, valid, self.mask_share, self.random_share)

        def loss(params: Any, parts: tuple[jax.Array, ...], key: jax.Array) -> tuple[jax.Array, Arrays]:
            *inputs, share = parts
            losses, right = self._losses({"params": params}, *inputs, train=True, rngs={"dropout": key})
            return jnp.sum(losses * share), {"accuracy/train": jnp.sum(right * share)}

        parts = (hidden, tokens, valid, at, self.training.shares(counts))
        return self.training.step(state, parts, key, loss)

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
        inputs, valid = with_cls(hidden, valid, self.vocabulary)
        logits, _ = self.model.apply(variables, inputs, valid=valid, at=at + 1, **options)
        targets = jnp.take_along_axis(tokens.astype(jnp.int32), at, axis=1)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses, jnp.argmax(logits, axis=-1) == targets

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

    def transfer(
        self, weights: Arrays, state: State, *, config: Mapping[str, Any], class_names: tuple[str, ...]
    ) -> Arrays:
        """Return another run's weights, with learned positions for this context.

        Raises:
            UserError: the other run has no such network.
        """
        del class_names
        if "ema/params/token_embedding" not in weights:
            raise UserError(f"init_from is a {config['task']} run, and this needs a model of text: pass its folder")
        return with_positions(weights, state)


def _number_of(tokens: jax.Array) -> jax.Array:
    """Return a number uint32 that depends on each of the tokens [T] and their order."""
    odd = 2 * jnp.arange(tokens.shape[0], dtype=jnp.uint32) * jnp.uint32(2654435769) + 1
    mixed = (tokens.astype(jnp.uint32) + 1) * odd
    return jnp.sum(mixed ^ (mixed >> 15), dtype=jnp.uint32)
