"""The evaluation pass over a split: every example counts once, whatever the batches."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gormley_vision.data.batches import Batches
from gormley_vision.training.hosts import put_global
from gormley_vision.training.sharding import Shardings
from gormley_vision.training.task import Evaluated


class Evaluation:
    """A task's `eval_step` over all of `batches`, each `every` steps (0: only at the end)."""

    def __init__(self, task: Evaluated, batches: Batches, every: int) -> None:
        self.batches, self.every = batches, every
        self._task = task
        self._step: Callable | None = None  # compiled for the first mesh that it meets

    def __call__(
        self, state: Any, shardings: Shardings, stop: Callable[[], int] = lambda: 0
    ) -> dict[str, float] | None:
        """{'eval/NAME': mean over the split} for each of the task's sums, which come with their 'count'.

        None where `stop`, asked before each batch, asked to end.
        """
        if self._step is None:
            self._step = jax.jit(shardings.on_mesh(self._task.eval_step), out_shardings=shardings.replicated)
        waiting = []
        for batch in self.batches.padded():
            if stop():
                return None
            waiting.append(self._step(state, put_global(batch, shardings.examples)))
        sums = [jax.device_get(part) for part in waiting]
        totals = {name: np.sum([part[name] for part in sums], dtype=np.float64) for name in sums[0]}
        count = totals.pop("count")
        return {f"eval/{name}": float(total / count) for name, total in totals.items()}
