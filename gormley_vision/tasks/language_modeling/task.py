"""Decoder-only language models: each token is predicted from those before it, by cross-entropy."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gormley_vision.data.tokenizers import Tokenizer
from gormley_vision.errors import UserError
from gormley_vision.models.transformer import Transformer
from gormley_vision.randomness import named_key
from gormley_vision.samples import Texts
from gormley_vision.tasks.language_modeling import generation
from gormley_vision.tasks.single_network import Arrays, State, Training, with_positions

PREVIEWS = 4  # texts


@dataclasses.dataclass(frozen=True)
class LanguageModeling:
    """The task; the model maps tokens [B, T] to logits [B, T, V] of the tokens that follow."""

    model: Transformer
    training: Training
    tokenizer: Tokenizer
    prompt: str  # of previews

    afterwards = "continue a text: python scripts/sample.py --workdir={workdir} --prompt='Once'"

    def init(self, key: jax.Array) -> State:
        """Return a fresh state, a function of the key only."""
        tokens = jnp.zeros((1, self.model.context), jnp.int32)
        return self.training.start(self.model.init(named_key(key, "init/network"), tokens)["params"])

    def train_step(self, state: State, batch: Arrays, key: jax.Array) -> tuple[State, Arrays, Arrays]:
        """Take one gradient step on 'tokens' [1, m, context + 1], 'valid' and, if packed, 'segments', 'positions'."""
        windows = {name: array[0] for name, array in batch.items() if name != "bytes"}
        windows["share"] = self.training.shares(_predicted(windows))

        def loss(params: Any, windows: Arrays, key: jax.Array) -> tuple[jax.Array, Arrays]:
            losses, _ = self._losses({"params": params}, windows, train=True, rngs={"dropout": key})
            return jnp.sum(losses * windows["share"]), {}

        return self.training.step(state, windows, key, loss)

    def _losses(self, variables: Any, windows: Arrays, **options: Any) -> tuple[jax.Array, jax.Array]:
        """Return nats of each target [B, T], and whether the model's first choice was right."""
        inputs, targets = windows["tokens"][:, :-1], windows["tokens"][:, 1:].astype(jnp.int32)
        options |= {name: windows[name][:, :-1] for name in ("positions", "segments") if name in windows}
        # Padding comes last, which no token sees.
        logits, _ = self.model.apply(variables, inputs, **options)
        right = jnp.argmax(logits, axis=-1) == targets
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets), right

    def eval_step(self, state: State, batch: Arrays) -> Arrays:
        """Return sums over the predicted tokens of a batch: nats 'loss', 'accuracy', 'bytes', and their 'count'.

        The first token of a window is not predicted, nor, if packed, the first of a document.
        """
        losses, right = self._losses(state.ema, batch)
        there = _predicted(batch) * batch["mask"][:, None]
        sums = {"loss": jnp.sum(losses * there), "accuracy": jnp.sum(right * there)}
        return sums | {"bytes": jnp.sum(batch["bytes"] * batch["mask"]).astype(jnp.float32), "count": jnp.sum(there)}

    def eval_figures(self, means: Mapping[str, float]) -> dict[str, float]:
        """Add bits per byte of UTF-8, which models with different vocabularies can be compared by."""
        figures = {name: mean for name, mean in means.items() if name != "bytes"}
        return figures | {"bits_per_byte": means["loss"] / math.log(2) / means["bytes"]}

    def transfer(
        self, weights: Arrays, state: State, *, config: Mapping[str, Any], class_names: tuple[str, ...]
    ) -> Arrays:
        """Return another run's weights, with learned positions for this context.

        Raises:
            UserError: the other run is not a language model's.
        """
        del class_names
        if "ema/params/token_embedding" not in weights:
            raise UserError(f"init_from is a run of {config['task']}, and this needs one of language_modeling")
        return with_positions(weights, state)

    def preview(self, state: State, key: jax.Array) -> jax.Array:
        """Return tokens int32 [4, T] that continue the preview's prompt, the prompt included."""
        prompt = generation.prompt_tokens(self.tokenizer, self.prompt)
        return generation.preview(self.model, state.ema, prompt, PREVIEWS, named_key(key, "preview"))

    def show(self, preview: Any) -> Texts:
        """Return them as texts."""
        return Texts(tuple(self.tokenizer.decode(row) for row in preview))

    def sample(self, state: State, *, num: int, seed: int, **options: Any) -> Texts:
        """Return `num` texts, each its prompt and what follows; see `SAMPLING` for the options.

        Raises:
            UserError: a prompt cannot be read, or has what the vocabulary lacks.
        """
        return Texts(tuple(generation.generate(self, state.ema, num=num, seed=seed, **options)))

    def stream(self, state: State, *, seed: int, **options: Any) -> Iterator[str]:
        """Yield the text of sample 0 in pieces, as it is generated."""
        return generation.stream(self, state.ema, seed=seed, **options)


def _predicted(windows: Arrays) -> jax.Array:
    """Return which targets [B, T] count: all that are not padding, or the first token of another document."""
    there = windows["valid"][:, 1:]
    if "segments" in windows:
        there = there & (windows["segments"][:, 1:] == windows["segments"][:, :-1])
    return there.astype(jnp.float32)
