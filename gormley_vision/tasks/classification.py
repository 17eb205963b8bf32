"""Image classification by cross-entropy: the second task, which proves that the loop knows neither."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from gormley_vision.losses.classification import softmax_cross_entropy
from gormley_vision.randomness import named_key
from gormley_vision.tasks.players import Player, apply_gradients, finite, flip_half, new_player, to_unit_range


@flax.struct.dataclass
class ClassificationState:
    """All that training changes."""

    step: jax.Array
    classifier: Player


@dataclasses.dataclass(frozen=True)
class Classification:
    """The task; the model maps images [B, H, W, C] in [-1, 1] to logits [B, Y]."""

    classifier: nn.Module
    optimizer: optax.GradientTransformation
    image_shape: tuple[int, int, int]
    flip: bool
    minibatches: int = 1

    def init(self, key: jax.Array) -> ClassificationState:
        """A fresh state; parameters follow from the key alone."""
        images = jnp.zeros((2, *self.image_shape))
        variables = self.classifier.init(named_key(key, "init/classifier"), images, train=True)
        variables = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
        return ClassificationState(jnp.zeros((), jnp.int32), new_player(variables, self.optimizer))

    def train_step(
        self, state: ClassificationState, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[ClassificationState, dict[str, jax.Array], dict[str, jax.Array]]:
        """One gradient step on 'image' uint8 [1, m, H, W, C] and 'label' int32 [1, m]."""
        images, labels = to_unit_range(batch["image"][0]), batch["label"][0]
        if self.flip:
            images = flip_half(named_key(key, "flip", state.step), images)
        player = state.classifier

        def loss(params: Any):
            logits, updated = self.classifier.apply(
                {**player.variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return softmax_cross_entropy(logits, labels), (logits, updated["batch_stats"])

        (value, (logits, batch_stats)), gradients = jax.value_and_grad(loss, has_aux=True)(player.variables["params"])
        metrics = {
            "loss/classifier": value,
            "accuracy/train": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
            "gradient_norm/classifier": optax.tree.norm(gradients),
        }
        checks = finite("classifier/loss", value) | finite("classifier/gradient", gradients)
        player = apply_gradients(player, gradients, batch_stats, self.optimizer)
        return ClassificationState(state.step + 1, player), metrics, checks

    def eval_step(self, state: ClassificationState, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Sums over 'image' uint8 [B, H, W, C], 'label' [B] and 'mask' bool [B]: 'correct', 'loss', 'count'."""
        logits: Any = self.classifier.apply(state.classifier.variables, to_unit_range(batch["image"]), train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, axis=-1) == batch["label"]
        mask = batch["mask"].astype(jnp.float32)
        return {"correct": jnp.sum(correct * mask), "loss": jnp.sum(losses * mask), "count": jnp.sum(mask)}

    preview_columns = 8

    def preview(self, state: ClassificationState, key: jax.Array) -> jax.Array:
        """The first layer's kernels as images [n, k, k, C], scaled to [-1, 1]."""
        del key
        kernel = state.classifier.variables["params"]["Convolution_0"]["kernel"]
        return jnp.moveaxis(kernel / jnp.maximum(jnp.abs(kernel).max(), 1e-8), 3, 0)
