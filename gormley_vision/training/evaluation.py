"""Exact evaluation over a full split: every example counts once, whatever the batch size."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from gormley_vision.data.batches import Batches
from gormley_vision.errors import UserError
from gormley_vision.training.environment import code
from gormley_vision.training.hosts import put_global
from gormley_vision.training.sharding import Shardings
from gormley_vision.training.task import Derived, Evaluated


class Evaluates(Protocol):
    """What the loop calls every `every` steps (0: only at the end), and at the end."""

    every: int

    def __call__(
        self, state: Any, shardings: Shardings, stop: Callable[[], int] = lambda: 0
    ) -> dict[str, float] | None:
        """Return figures by the names under which they are recorded; None if `stop`, called often, returns nonzero."""

    def card(self, step: int, figures: Mapping[str, float]) -> dict[str, Any]:
        """Return, as JSON, figures of a step with all that they depend on."""


class Evaluation:
    """Runs a task's `eval_step` over all of `batches`, every `every` steps (0: only at the end).

    `data` is the config's section, for cards.
    """

    def __init__(self, task: Evaluated, batches: Batches, every: int, data: Mapping[str, Any] | None = None) -> None:
        self.batches, self.every = batches, every
        self._data = data or {}
        self._task = task
        self._step: Callable | None = None  # compiled at the first call, for its mesh

    def __call__(
        self, state: Any, shardings: Shardings, stop: Callable[[], int] = lambda: 0
    ) -> dict[str, float] | None:
        """Return {'eval/NAME': mean over the split} for each sum that the task returns besides their 'count'.

        A task may derive other figures from these means.

        Returns None if `stop`, called before each batch, returns nonzero.
        """
        if self._step is None:
            self._step = shardings.jit(self._task.eval_step, out_shardings=shardings.replicated)
        pending = []
        for batch in self.batches.padded():
            if stop():
                return None
            pending.append(self._step(state, put_global(batch, shardings.examples)))
            if "count" not in pending[0]:
                found = ", ".join(pending[0])
                raise UserError(
                    f"eval_step of the task returns {found}, and must return 'count': see docs/extending.md"
                )
        sums = [jax.device_get(part) for part in pending]
        totals = {name: np.sum([part[name] for part in sums], dtype=np.float64) for name in sums[0]}
        count = totals.pop("count")
        means = {name: float(total / count) for name, total in totals.items()}
        if isinstance(self._task, Derived):
            means = self._task.eval_figures(means)
        return {f"eval/{name}": mean for name, mean in means.items()}

    def card(self, step: int, figures: Mapping[str, float]) -> dict[str, Any]:
        """Return figures of a step, the data that they are of, and the code."""
        data = {**self._data, "count": self.batches.length, "sha256": self.batches.sha256}
        return {"figures": dict(figures), "step": step, "data": data, **code()}
