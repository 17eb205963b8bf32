"""The loop. It owns jit, sharding, donation, checkpoints, records and time, and knows no task by name.

One turn: take a piece of data, run the compiled step (the old state's memory is reused), look whether the
step before was finite, and from time to time record metrics, draw pictures and save. Everything random is a
function of (seed, step), so a run that was killed goes on as if it had not been.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision import durations
from gormley_vision.config import changed_keys
from gormley_vision.data.batches import Batches
from gormley_vision.errors import UserError
from gormley_vision.files import write_json
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.environment import describe_environment, source_commit
from gormley_vision.training.interrupts import Interrupts
from gormley_vision.training.progress import TrainingProgress
from gormley_vision.training.records import Records, now
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import Task

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The config's durations in steps; 0 is never."""

    total: int
    stop_after: int
    log_every: int
    samples_every: int
    checkpoint_every: int
    keep_every: int

    @classmethod
    def of(cls, config: Mapping[str, Any], batches: Batches) -> "Plan":
        """Convert with the data set's epoch and the step's images."""

        def steps(duration: str) -> int:
            images = batches.batch_size * batches.minibatches
            return durations.to_steps(duration, epoch_images=batches.length, step_images=images)

        plan = cls(
            total=steps(config["duration"]),
            stop_after=steps(config["stop_after"]),
            log_every=steps(config["log"]["every"]),
            samples_every=steps(config["log"]["samples_every"]),
            checkpoint_every=steps(config["checkpoint"]["every"]),
            keep_every=steps(config["checkpoint"]["keep_every"]),
        )
        if plan.total < 1:
            raise UserError(f"duration={config['duration']!r} is no step at all: pass --config.duration='1 epochs'")
        if config["checkpoint"]["keep_last"] < 1:
            raise UserError("checkpoint.keep_last must be at least 1: pass --config.checkpoint.keep_last=1")
        return plan

    @property
    def end(self) -> int:
        """The step at which this process ends."""
        return min(self.total, self.stop_after or self.total)


class Step:
    """The compiled step: `step(state, resident, piece, key) -> state, metrics, finite`, state donated.

    `finite` is one bool vector; `checks` names its entries; `traces` counts compilations.
    """

    def __init__(self, task: Task, fetch: Callable, shardings: Shardings) -> None:
        self.checks: list[str] = []
        self.traces = 0

        def step(state: Any, resident: Any, piece: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
            self.traces += 1
            state, metrics, checks = task.train_step(state, fetch(resident, piece), key)
            metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
            # Finite losses and gradients can still overflow in a norm that is logged, or in the update.
            after = {f"metric/{name}": value for name, value in metrics.items()}
            after |= {f"state/{name}": leaf for name, leaf in ckpt.flat(state).items()}
            checks = checks | {name: jnp.isfinite(value).all() for name, value in after.items()}
            self.checks[:] = checks
            return state, metrics, jnp.stack(list(checks.values()))

        self._run = jax.jit(step, donate_argnums=0, out_shardings=shardings.replicated)
        self.lower = self._run.lower

    def __call__(self, state: Any, resident: Any, piece: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
        """Dispatch one step."""
        return self._run(state, resident, piece, key)

    def refuse_non_finite(self, step: int, finite: jax.Array, workdir: Path) -> None:
        """Raise if the step that ended at `step` met a NaN or an infinity, naming the first tensor."""
        flags = jax.device_get(finite)
        if not flags.all():
            name = self.checks[int(np.argmin(flags))]
            raise UserError(
                f"step {step}: {name} is not finite ({int((~flags).sum())} of {flags.size} losses, gradients and "
                f"state arrays); "
                f"nothing of it is saved. Look at it again with\n"
                f"  python scripts/replay.py --workdir={workdir} --step={step}"
            )


@dataclasses.dataclass
class Run:
    """What the loop holds ready before its first step."""

    config: Mapping[str, Any]
    workdir: Path
    plan: Plan
    shardings: Shardings
    step: Step
    state: Any
    resident: dict[str, jax.Array]
    key: jax.Array
    meta: dict[str, Any]


def prepare(task: Task, batches: Batches, config: Mapping[str, Any], workdir: Path, at: int | None = None) -> Run:
    """Build the run, at its newest whole checkpoint (or the newest not after step `at`), or at the start."""
    plan = Plan.of(config, batches)
    mesh = make_mesh(config["mesh"]["data"], batches.batch_size)
    shardings = Shardings.on(mesh)
    meta = {
        "config": config,
        "data": {
            "sha256": batches.sha256,
            "length": batches.length,
            "image_shape": list(batches.image_shape),
            "class_names": list(batches.class_names),
        },
        "environment": describe_environment(mesh),
        "commit": source_commit(),
    }
    key = jax.device_put(jax.random.key(config["seed"]), shardings.replicated)
    shapes = jax.eval_shape(task.init, key)
    folder = workdir / "checkpoints"
    step = ckpt.newest_whole(folder, at)
    if step is None and at is None and (damaged := ckpt.steps_of(folder)):
        raise UserError(
            f"every checkpoint in {folder} is damaged ({', '.join(map(str, damaged))}), and starting afresh would "
            f"overwrite this run: move {workdir} away, or use another --workdir"
        )
    if step is not None:
        refuse_changes(ckpt.read_meta(folder / str(step)), meta)
        state = ckpt.restore(folder / str(step), shapes, shardings.replicated)
    else:
        state = jax.jit(task.init, out_shardings=shardings.replicated)(key)
        if config["init_from"]:
            state = adopt_weights(state, Path(config["init_from"]), shardings)
    compiled = Step(task, batches.fetch, shardings)
    resident = jax.device_put(batches.resident, shardings.replicated)
    return Run(config, workdir, plan, shardings, compiled, state, resident, key, meta)


def refuse_changes(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to resume under another config or data set; say where bits may differ."""
    if changes := changed_keys(saved["config"], here["config"]):
        raise UserError(
            "this run was started with another config:\n  "
            + "\n  ".join(changes)
            + "\nuse another --workdir, or --config.init_from to start from its weights"
        )
    old, new = saved["data"], here["data"]
    if len({config["data"]["placement"] == "stream" for config in (saved["config"], here["config"])}) == 2:
        log.warning("data.placement changed to or from 'stream': that the data set is the same is only checked by size")
        new = new | {"sha256": old["sha256"]}  # of decoded pixels for the one, of the files' identity for the other
    if old != new:
        raise UserError(
            f"the data set has changed since the checkpoint: {_differences(old, new)}; "
            "restore it, or use another --workdir"
        )
    if saved["environment"] != here["environment"]:
        log.warning(
            "continuing with the same batches and noise, but not to the same bits: %s",
            _differences(saved["environment"], here["environment"]),
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)
    )


def adopt_weights(state: Any, source: Path, shardings: Shardings) -> Any:
    """`state` with the variables and averages of another run's newest checkpoint; optimizers stay fresh."""
    folder = source / "checkpoints"
    step = ckpt.newest_whole(folder)
    if step is None:
        raise UserError(f"init_from={source}: no checkpoint there")
    log.info("starting from the weights of %s, step %d", source, step)
    weights = frozenset({"variables", "ema"})
    return ckpt.restore(folder / str(step), state, shardings.replicated, parts=weights)


def train(task: Task, batches: Batches, config: Mapping[str, Any], workdir: Path, profile: bool = False) -> int:
    """Train, or go on training, until the plan ends or a signal asks to. Returns that signal, or 0."""
    run = prepare(task, batches, config, workdir)
    start, plan = int(jax.device_get(run.state.step)), run.plan
    if start >= plan.end:
        what = "finished" if start >= plan.total else "has reached stop_after"
        log.info(
            "this run %s at step %d; sample from it: python scripts/sample.py --workdir=%s",
            what,
            start,
            workdir,
        )
        return 0
    write_json(workdir / "config.json", config)
    checkpoints = ckpt.Checkpoints(
        workdir / "checkpoints", keep_last=config["checkpoint"]["keep_last"], keep_every=plan.keep_every
    )
    checkpoints.clear_partial()
    checkpoints.set_aside(after=start)
    log.info(
        "%s step %d of %d; %d images an epoch, %d a step; %d device(s)",
        "continuing after" if start else "starting at",
        start,
        plan.end,
        batches.length,
        batches.batch_size * batches.minibatches,
        run.shardings.replicated.mesh.size,
    )
    records = Records(workdir, start)
    progress = TrainingProgress(start, plan.end, batches.batch_size * batches.minibatches)
    with (
        Interrupts() as interrupts,
        contextlib.closing(checkpoints),
        contextlib.closing(batches.pieces(start)) as pieces,
        contextlib.closing(records),
        contextlib.closing(progress),
        trace(workdir, profile),
    ):
        _turn(task, run, pieces, checkpoints, records, progress, interrupts, start)
    if interrupts.signal:
        log.info("saved; the same command continues")
    else:
        log.info("done; sample from it: python scripts/sample.py --workdir=%s --out=samples.png", workdir)
    return interrupts.signal


def _turn(task, run, pieces, checkpoints, records, progress, interrupts, start) -> None:
    """The turns of the loop, from `start` to the plan's end."""
    plan, state = run.plan, run.state
    preview = jax.jit(task.preview, out_shardings=run.shardings.replicated)
    pending: tuple[int, jax.Array] | None = None  # a step whose finiteness was not looked at yet
    waited, since = 0.0, time.perf_counter()
    with jax.transfer_guard_host_to_device("disallow"):
        for step in range(start + 1, plan.end + 1):
            before = time.perf_counter()
            piece = next(pieces)
            waited += time.perf_counter() - before
            piece = jax.tree.map(lambda x: jax.make_array_from_process_local_data(run.shardings.batch, x), piece)
            state, metrics, finite = run.step(state, run.resident, piece, run.key)
            progress.advance(step)
            if pending is not None:  # one step late, so that the device is never idle
                run.step.refuse_non_finite(*pending, run.workdir)
            pending = step, finite

            def due(every: int, step: int = step) -> bool:
                return bool(every) and step % every == 0

            last = step == plan.end or bool(interrupts.signal)
            saves = last or due(plan.checkpoint_every)
            if saves or due(plan.log_every) or due(plan.samples_every):
                run.step.refuse_non_finite(step, finite, run.workdir)
            if due(plan.log_every):
                values = {name: float(value) for name, value in jax.device_get(metrics).items()}
                progress.report(step, values)
                elapsed = time.perf_counter() - since
                records.scalars(
                    step,
                    values,
                    {
                        "at": now(),
                        "images_per_second": round(progress.images_per_second, 1),
                        "waiting_for_data": round(waited / elapsed, 4),
                    },
                )
                waited, since = 0.0, time.perf_counter()
            if due(plan.samples_every) or step == plan.total:
                records.pictures(step, jax.device_get(preview(state, run.key)), task.preview_columns)
            checkpoints.check()
            if saves:
                checkpoints.save(step, state, run.meta)
            if interrupts.signal and last:
                break
    checkpoints.wait()


@contextlib.contextmanager
def trace(workdir: Path, wanted: bool):
    """A profiler trace of the run under `workdir/profile`, for TensorBoard or Perfetto, if wanted."""
    if not wanted:
        yield
        return
    with jax.profiler.trace(str(workdir / "profile")):
        yield
    log.info(
        "wrote a trace to %s; open it with TensorBoard's profile plugin or ui.perfetto.dev",
        workdir / "profile",
    )
