"""Classification of texts by what an encoder makes of [CLS]: from scratch, fine-tuned, or by a linear probe."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.augmentation.mixing import smoothed_targets
from gormley_vision.data.tokenizers import Tokenizer
from gormley_vision.errors import UserError
from gormley_vision.losses.classification import softmax_cross_entropy
from gormley_vision.models.sentence_cnn import SentenceCNN
from gormley_vision.models.transformer import Transformer
from gormley_vision.randomness import named_key
from gormley_vision.tasks.single_network import Arrays, State, Training, with_positions
from gormley_vision.tasks.special_tokens import hide_some, with_cls

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TextClassification:
    """The task; the model maps [CLS] and tokens [B, T + 1] to logits [B, Y]."""

    model: Transformer | SentenceCNN
    training: Training
    tokenizer: Tokenizer
    vocabulary: int  # V, without special tokens
    label_smoothing: float
    word_dropout: float
    class_names: tuple[str, ...]

    afterwards = "classify: python scripts/classify.py --workdir={workdir} --text='...'"

    def init(self, key: jax.Array) -> State:
        """Return a fresh state, a function of the key only."""
        return self.training.start(initial(self.model, named_key(key, "init/network")))

    def train_step(self, state: State, batch: Arrays, key: jax.Array) -> tuple[State, Arrays, Arrays]:
        """Take one gradient step on 'tokens' [1, m, T], 'valid' bool [1, m, T] and 'label' int32 [1, m]."""
        tokens, valid, labels = (batch[name][0] for name in ("tokens", "valid", "label"))
        if self.word_dropout:
            draw = named_key(key, "word_dropout", state.step)
            tokens = hide_some(draw, tokens, valid, self.vocabulary, self.word_dropout)

        def loss(params: Any, parts: tuple[jax.Array, ...], key: jax.Array) -> tuple[jax.Array, Arrays]:
            tokens, valid, labels = parts
            logits = self._apply({"params": params}, tokens, valid, train=True, rngs={"dropout": key})
            targets = smoothed_targets(labels, len(self.class_names), self.label_smoothing)
            accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
            return jnp.mean(softmax_cross_entropy(logits, targets)), {"accuracy/train": accuracy}

        return self.training.step(state, (tokens, valid, labels), key, loss)

    def _apply(self, variables: Any, tokens: jax.Array, valid: jax.Array, **options: Any) -> jax.Array:
        tokens, valid = with_cls(tokens, valid, self.vocabulary)
        found: Any = self.model.apply(variables, tokens, valid=valid, **options)
        return found[0]

    def eval_step(self, state: State, batch: Arrays) -> Arrays:
        """Return sums 'accuracy', 'loss' and 'count' over the texts whose 'mask' is set."""
        logits, labels = self._apply(state.ema, batch["tokens"], batch["valid"]), batch["label"]
        losses = softmax_cross_entropy(logits, jax.nn.one_hot(labels, len(self.class_names)))
        mask, right = batch["mask"].astype(jnp.float32), jnp.argmax(logits, axis=-1) == labels
        return {"accuracy": jnp.sum(right * mask), "loss": jnp.sum(losses * mask), "count": jnp.sum(mask)}

    def classify(self, state: State, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return the probability of each class for each text, float32 [N, Y]; texts are cut to the model's context.

        Raises:
            UserError: a text has what the vocabulary lacks.
        """
        length = self.model.context - 1
        encoded = [self.tokenizer.encode(text)[0] for text in texts]
        if longer := [row for row, tokens in enumerate(encoded, start=1) if len(tokens) > length]:
            _log.warning(
                "%d of %d texts have more than the %d tokens of data.context and are cut, first text %d",
                *(len(longer), len(texts), length, longer[0]),
            )
        padded = np.zeros((-(-len(texts) // batch_size) * batch_size, length), np.int32)
        valid = np.zeros(padded.shape, bool)
        for row, tokens in enumerate(encoded):
            padded[row, : len(tokens)], valid[row, : len(tokens)] = tokens[:length], True
        apply = jax.jit(lambda *inputs: jax.nn.softmax(self._apply(state.ema, *inputs)))
        parts = [slice(start, start + batch_size) for start in range(0, len(padded), batch_size)]
        return np.concatenate([np.asarray(apply(padded[part], valid[part])) for part in parts])[: len(texts)]

    def transfer(
        self, weights: Arrays, state: State, *, config: Mapping[str, Any], class_names: tuple[str, ...]
    ) -> Arrays:
        """Return another run's weights, made to fit `state`, with learned positions for this context.

        Of a masked language model the averaged weights are used, and the head is that of `state`, zeros. Of a
        classifier of the same classes all is used; its head is matched by the classes' names.

        Raises:
            UserError: the other run has no such network, or other classes.
        """
        embedding = weights.get("ema/params/token_embedding")
        if embedding is None or len(embedding) != self.model.vocabulary:  # with [CLS] and [MASK]
            needed = "a masked language model's or a text classifier's"
            raise UserError(f"init_from is a run of {config['task']}, and this needs {needed}: pass its folder")
        parts = ("ema", "network/variables")
        if "ema/params/head/kernel" not in weights:
            averaged = {name.removeprefix("ema/"): x for name, x in weights.items() if name.startswith("ema/")}
            weights = {f"{part}/{name}": jnp.copy(x) for part in parts for name, x in averaged.items()}
            head = state.ema["params"]["head"]
            weights |= {f"{part}/params/head/{name}": jnp.copy(x) for part in parts for name, x in head.items()}
        elif class_names != self.class_names:
            if set(class_names) != set(self.class_names):
                raise UserError(
                    f"init_from has the classes {', '.join(class_names)}; here they are {', '.join(self.class_names)}"
                )
            order = jnp.array([class_names.index(name) for name in self.class_names])
            heads = [f"{part}/params/head/{name}" for part in parts for name in ("kernel", "bias")]
            weights |= {name: jnp.take(weights[name], order, axis=-1) for name in heads}
        return with_positions(weights, state)


def initial(model: Transformer | SentenceCNN, key: jax.Array) -> Any:
    """Return fresh parameters."""
    return model.init(key, jnp.zeros((1, model.context), jnp.int32))["params"]
