"""The interface between the training loop and a task. Tasks do not import it: it is a structural `Protocol`.

`Task` is what the loop trains. The others are optional abilities: programs check for the method, never for the task.
What a task declares before jax is loaded, above all its config keys, is in task_modules.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np

from gormley_vision.health import Rule
from gormley_vision.samples import Samples

Batch = dict[str, jax.Array]
Scalars = dict[str, jax.Array]


class Task(Protocol):
    """Pure functions on a state pytree that has a `step` counter."""

    def init(self, key: jax.Array) -> Any:
        """Return a fresh state, a function of the key only. Parameters may be in flax's boxes, with axis names."""

    def train_step(self, state: Any, batch: Batch, key: jax.Array) -> tuple[Any, Scalars, Scalars]:
        """Return the new state, scalars to log, and named finiteness checks in the order computed.

        `batch` holds each feature as [k, m, ...]: 'image' uint8 [k, m, H, W, C], 'label' int32 [k, m]. `key` is the
        same in every step, so random draws must also use `state.step`.
        """

    @property
    def afterwards(self) -> str:
        """What to do with a finished run, for the log; '{workdir}' stands for its folder."""


@runtime_checkable
class Evaluated(Protocol):
    """Can be evaluated on a data set; its config keys include fields.EVALUATION_FIELDS."""

    def eval_step(self, state: Any, batch: Batch) -> Scalars:
        """Return sums over the examples whose 'mask' is set, and their 'count'."""


@runtime_checkable
class Derived(Protocol):
    """Reports figures of an evaluation that are functions of means, such as a ratio of two."""

    def eval_figures(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return {name: figure} in place of the means {name: mean over the split}."""


@runtime_checkable
class Previewed(Protocol):
    """Can show how training is going."""

    def preview(self, state: Any, key: jax.Array) -> jax.Array:
        """Return what is shown, as one array: a function of state and key only, compiled by the loop."""

    def show(self, preview: Any) -> Samples:
        """Convert that array, fetched from the device, to pictures or texts."""


@runtime_checkable
class Sampled(Protocol):
    """Can generate samples on request."""

    def sample(self, state: Any, *, num: int, seed: int, **options: Any) -> Samples:
        """Return `num` samples. Sample i depends only on `seed`, i and the options, which its module's SAMPLING lists.

        Pictures can also be asked for from number `first` on.

        Raises:
            UserError: an option that makes no sense for this run.
        """


@runtime_checkable
class Judged(Protocol):
    """Has rules of its own, for instance since some of its losses are a game's, and no minimum is looked for."""

    @property
    def rules(self) -> Sequence[Rule]:
        """The rules by which the run's figures are judged (health.py), in place of those of every task."""


@runtime_checkable
class Examined(Judged, Protocol):
    """Can tell how training is doing beyond what a step logs; its config keys include fields.EXAMINATION_FIELDS."""

    def examine(self, state: Any, key: jax.Array, real: Batch, held_out: Batch) -> Scalars:
        """Return figures of the state on examples of the data set, {name: [n, *shape]}, and on held-out ones, or {}."""


@runtime_checkable
class Generates(Protocol):
    """Generates images that can be compared with real ones while it trains (`evaluate.extractor`)."""

    def generated(self, state: Any, key: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Return images [n, H, W, C] in [-1, 1] and labels int [n], if they have any; image i is a function of ids[i].

        Compiled by the loop.
        """


@runtime_checkable
class Extracts(Protocol):
    """Has features of images, by which sets of them are compared (extractors.py)."""

    def features(self, state: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return features [B, D] and probabilities [B, Y] of uint8 images [B, H, W, C], by the averaged variables."""


@runtime_checkable
class Streamed(Protocol):
    """Can show a sample while it is generated."""

    def stream(self, state: Any, *, seed: int, **options: Any) -> Iterator[str]:
        """Yield the pieces of the first text that `sample` returns."""


@runtime_checkable
class Classifies(Protocol):
    """Can tell the class of any text."""

    def classify(self, state: Any, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of each class for each text, [N, Y].

        Raises:
            UserError: a text cannot be read by the run's tokenizer.
        """


@runtime_checkable
class Translates(Protocol):
    """Can make one picture of another."""

    @property
    def classes(self) -> int:
        """Of the label maps that it reads; 0 if it reads images."""

    @property
    def input_channels(self) -> int:
        """Of the pictures that it reads."""

    @property
    def fills(self) -> bool:
        """Whether it fills holes, and must be told where these are."""

    @property
    def squeezed_to(self) -> int:
        """The side to which whole pictures are squeezed for the net; 0 if they are not."""

    @property
    def scale(self) -> int:
        """How many times as large its pictures are."""

    def translate(
        self,
        state: Any,
        picture: np.ndarray,
        known: np.ndarray | None = None,
        *,
        tile: int = 0,
        own_size: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the picture that is made of `picture`, uint8 [H, W, C], and that picture as it is, of the same size.

        `known`, bool [H, W], says which pixels are known; `tile` is the side of parts computed one after another; with
        `own_size` a picture is not squeezed to `squeezed_to`.
        """

    def degrade(self, target: np.ndarray, number: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the target, perhaps cut, an input made of it as in training, and which pixels that knows.

        Raises:
            UserError: the task makes no inputs.
        """


@runtime_checkable
class Transferred(Protocol):
    """Can start from another run's weights."""

    def transfer(self, weights: Batch, state: Any, *, config: Mapping[str, Any], class_names: tuple[str, ...]) -> Batch:
        """Return `weights`, {name: array} of another run with this config and these classes, made to fit `state`.

        Raises:
            UserError: they cannot fit. Names what to type.
        """


def first_state(task: Task, key: jax.Array) -> Any:
    """Return `task.init` without boxes: the state as it is trained, saved and restored."""
    return nn.unbox(task.init(key))
