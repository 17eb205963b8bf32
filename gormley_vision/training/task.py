"""The seam between the loop and what is learned. Tasks do not import this: they have the shape of it.

`Task` is what trains. The others are what some tasks can do besides: programs ask for the method, never for the task.
What a task says before jax is loaded, its config keys above all, is in task_modules.py.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax

from gormley_vision.samples import Samples

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

        `batch` holds [k, m, ...] of each feature, as 'image' uint8 [k, m, H, W, C] and 'label' int32 [k, m]; `key` is
        the run's, so a draw is named by `state.step`.
        """

    @property
    def afterwards(self) -> str:
        """What to do with a finished run, with '{workdir}' for its folder."""


@runtime_checkable
class Evaluated(Protocol):
    """Has a score on a data set; its table includes fields.EVALUATION_FIELDS."""

    def eval_step(self, state: Any, batch: Batch) -> Scalars:
        """Sums over the examples whose 'mask' is set, and their 'count'."""


@runtime_checkable
class Previewed(Protocol):
    """Shows how training goes."""

    def preview(self, state: Any, key: jax.Array) -> jax.Array:
        """What is shown, as one array; a function of state and key alone, compiled."""

    def show(self, preview: Any) -> Samples:
        """That array, fetched from the device, as people look at it."""


@runtime_checkable
class Sampled(Protocol):
    """Make samples from a request."""

    def sample(self, state: Any, *, num: int, seed: int, **options: Any) -> Samples:
        """Sample i depends on `seed`, the options and i alone; these are its module's SAMPLING.

        Raises:
            UserError: an option that makes no sense for this run.
        """


@runtime_checkable
class Transferred(Protocol):
    """Take over another run's weights."""

    def transfer(self, weights: Batch, state: Any, *, config: Mapping[str, Any], class_names: tuple[str, ...]) -> Batch:
        """{name: array} of another run, of this config and these classes, made to fit `state`.

        Raises:
            UserError: they cannot; says what to type.
        """


def first_state(task: Task, key: jax.Array) -> Any:
    """`task.init` without boxes: the state as it is trained, saved and restored."""
    return nn.unbox(task.init(key))
