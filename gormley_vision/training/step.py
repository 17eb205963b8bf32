"""The compiled step, and the refusal of one that is not finite."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.errors import UserError
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.hosts import wait_for_all
from gormley_vision.training.sharding import Shardings
from gormley_vision.training.task import Task


class Step:
    """The compiled step: `step(state, resident, batch, key) -> state, metrics, finite`.

    The state is donated, and sharded as `state_shardings` says.

    `finite` is one bool vector; `checks` names its entries; `traces` counts compilations.
    """

    def __init__(self, task: Task, fetch: Callable, state_shardings: Any, shardings: Shardings) -> None:
        self.checks: list[str] = []
        self.traces = 0
        train_step = shardings.on_mesh(task.train_step)

        def step(state: Any, resident: Any, batch: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
            self.traces += 1
            state, metrics, checks = train_step(state, fetch(resident, batch), key)
            metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
            # Finite losses and gradients can still overflow in a norm that is logged, or in the update.
            after = {f"metric/{name}": value for name, value in metrics.items()}
            after |= {f"state/{name}": leaf for name, leaf in ckpt.flat(state).items()}
            checks = checks | {name: jnp.isfinite(value).all() for name, value in after.items()}
            self.checks[:] = checks
            return state, metrics, jnp.stack(list(checks.values()))

        self._run = jax.jit(step, donate_argnums=0, out_shardings=(state_shardings, *[shardings.replicated] * 2))

    def __call__(self, state: Any, resident: Any, batch: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
        """Dispatch one step; the first waits until every process has compiled it, since their caches may differ."""
        if not self.traces:
            self.lower(state, resident, batch, key).compile()
            wait_for_all("step")
        return self._run(state, resident, batch, key)

    def lower(self, state: Any, resident: Any, batch: Any, key: Any) -> jax.stages.Lowered:
        """The program of a step on arrays of these shapes and state_shardings, not compiled yet."""
        return self._run.lower(state, resident, batch, key)

    def refuse_non_finite(self, step: int, finite: jax.Array, workdir: Path) -> None:
        """Raise if the step that ended at `step` met a NaN or an infinity, naming the first tensor."""
        flags = jax.device_get(finite)
        if not flags.all():
            name = self.checks[int(np.argmin(flags))]
            raise UserError(
                f"step {step}: {name} is not finite ({int((~flags).sum())} of {flags.size} losses, gradients and "
                f"state arrays); "
                f"nothing of it is saved. Look at it again with\n"
                f"  python scripts/replay.py --workdir={shlex.quote(str(workdir))} --step={step}"
            )
