"""The compiled training step, and the check that its results are finite."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.errors import UserError
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.checkpoints import wait_for_all
from gormley_vision.training.sharding import Shardings
from gormley_vision.training.task import Task


class Step:
    """The compiled step: `step(state, resident, batch, key) -> state, metrics, finite`.

    The state is donated, and sharded by `state_shardings`. `finite` is one bool vector, `checks` names its entries, and
    `traces` counts compilations.
    """

    def __init__(self, task: Task, fetch: Callable, state_shardings: Any, shardings: Shardings) -> None:
        self.checks: list[str] = []
        self.traces = 0
        train_step = shardings.on_mesh(task.train_step)

        def step(state: Any, resident: Any, batch: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
            self.traces += 1
            state, metrics, checks = train_step(state, fetch(resident, batch), key)
            metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
            # With finite losses and gradients, a logged norm or the update can still overflow.
            after = {f"metric/{name}": value for name, value in metrics.items()}
            after |= {f"state/{name}": leaf for name, leaf in ckpt.flat(state).items()}
            checks = checks | {name: jnp.isfinite(value).all() for name, value in after.items()}
            self.checks[:] = checks
            return state, metrics, jnp.stack(list(checks.values()))

        self._run = jax.jit(step, donate_argnums=0, out_shardings=(state_shardings, *[shardings.replicated] * 2))

    def __call__(self, state: Any, resident: Any, batch: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
        """Dispatch one step. The first call waits until every process has compiled it: their caches may differ."""
        if not self.traces:
            self.lower(state, resident, batch, key).compile()
            wait_for_all("step")
        return self._run(state, resident, batch, key)

    def lower(self, state: Any, resident: Any, batch: Any, key: Any) -> jax.stages.Lowered:
        """Lower the step for arrays of these shapes and shardings, without compiling it."""
        return self._run.lower(state, resident, batch, key)

    def refuse_non_finite(self, step: int, finite: jax.Array, workdir: Path) -> None:
        """Raise an error if step `step` produced a NaN or an infinity, naming the first such tensor."""
        flags = jax.device_get(finite)
        if not flags.all():
            name = self.checks[int(np.argmin(flags))]
            raise UserError(
                f"step {step}: {name} is not finite ({int((~flags).sum())} of {flags.size} losses, gradients "
                f"and state arrays); this step was not saved. To examine it, run\n"
                f"  python scripts/replay.py --workdir={shlex.quote(str(workdir))} --step={step}"
            )
