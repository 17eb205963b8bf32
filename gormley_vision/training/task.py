"""The seam between the loop and what is learned. Tasks do not import this: they have the shape of it."""

from typing import Any, Protocol

import flax.linen as nn
import jax

Batch = dict[str, jax.Array]
Scalars = dict[str, jax.Array]


class Task(Protocol):
    """Pure functions on a state pytree that has a `step` counter."""

    @property
    def minibatches(self) -> int:
        """k: minibatches of one step."""

    def init(self, key: jax.Array) -> Any:
        """A fresh state; a function of the key alone. Parameters may be in flax's boxes, which name their axes."""

    def train_step(self, state: Any, batch: Batch, key: jax.Array) -> tuple[Any, Scalars, Scalars]:
        """New state, scalars to log, and named finiteness checks in the order computed.

        `batch` holds 'image' uint8 [k, m, H, W, C] and 'label' int32 [k, m]; `key` is the run's, so a draw
        is named by `state.step`.
        """

    def transfer(self, weights: Batch, state: Any, *, image_size: int, class_names: tuple[str, ...]) -> Batch:
        """What `init_from` takes over: {name: array} of another run, of this size and these classes, made to fit."""

    @property
    def afterwards(self) -> str:
        """What to do with a finished run, with '{workdir}' for its folder."""

    def preview(self, state: Any, key: jax.Array) -> jax.Array:
        """Pictures that show how training goes, [n, H, W, C] in [-1, 1]; a function of state and key alone."""

    @property
    def preview_columns(self) -> int:
        """Pictures in a row."""


class Evaluated(Protocol):
    """A task that has a score on labelled images."""

    def eval_step(self, state: Any, batch: Batch) -> Scalars:
        """Sums over the examples whose 'mask' is set, and their 'count'."""


def first_state(task: Task, key: jax.Array) -> Any:
    """`task.init` without boxes: the state as it is trained, saved and restored."""
    return nn.unbox(task.init(key))
