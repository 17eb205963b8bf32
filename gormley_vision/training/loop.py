"""The training loop: jit, sharding, donation, checkpoints, records and timing, for any task.

One iteration: take a batch, run the compiled step (the old state's memory is reused), check that the previous
step was finite, and from time to time record metrics, draw pictures and save. Everything random is a
function of (seed, step), so a run that was killed continues as if it had not been.
"""

import contextlib
import json
import logging
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.data.batches import Batches
from gormley_vision.data.features import tokenizer_of
from gormley_vision.errors import UserError
from gormley_vision.files import write_atomically
from gormley_vision.finiteness import all_finite
from gormley_vision.signals import Interrupts, handled
from gormley_vision.training.checkpoints import Checkpoints, flat, wait_for_all
from gormley_vision.training.checkup import Checkup, RollBack, drop_undone, note_rollback
from gormley_vision.training.evaluation import Evaluates
from gormley_vision.training.hosts import is_first, put_global, stop_vote
from gormley_vision.training.progress import TrainingProgress
from gormley_vision.training.records import Records, past_lines
from gormley_vision.training.sharding import Shardings, describe_mesh
from gormley_vision.training.start import Run, prepare
from gormley_vision.training.task import Previewed, Task

log = logging.getLogger(__name__)


class NotFinite(UserError):
    """A step produced a NaN or an infinity."""


class Step:
    """The compiled step: `step(state, resident, batch, key) -> state, metrics, finite`.

    The state is donated, and sharded by `state_shardings`. `finite` is one bool vector, `checks` names its entries, and
    `traces` counts compilations.
    """

    def __init__(self, task: Task, fetch: Callable, state_shardings: Any, shardings: Shardings) -> None:
        self.checks: list[str] = []
        self.traces = 0

        def step(state: Any, resident: Any, batch: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
            self.traces += 1
            state, metrics, checks = task.train_step(state, fetch(resident, batch), key)
            metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
            # With finite losses and gradients, a logged norm or the update can still overflow.
            after = {f"metric/{name}": value for name, value in metrics.items()}
            after |= {f"state/{name}": leaf for name, leaf in flat(state).items()}
            checks = checks | {name: all_finite(value) for name, value in after.items()}
            self.checks[:] = checks
            return state, metrics, jnp.stack(list(checks.values()))

        self._run = shardings.jit(step, donate_argnums=0, out_shardings=(state_shardings, *[shardings.replicated] * 2))

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
            raise NotFinite(
                f"step {step}: {name} is not finite ({int((~flags).sum())} of {flags.size} losses, gradients "
                f"and state arrays); this step was not saved. To examine it, run\n"
                f"  python scripts/replay.py --workdir={shlex.quote(str(workdir))} --step={step}"
            )


def train(
    task: Task,
    batches: Batches,
    config: Mapping[str, Any],
    workdir: Path,
    profile: bool = False,
    evaluation: Evaluates | None = None,
    checkup: Checkup | None = None,
) -> int:
    """Train, or continue training, until the planned end or a signal; go back where the checkup says so.

    Returns:
        The signal that ended training before its end, or 0.
    """
    checkup = checkup or Checkup(task, batches, None, every=0, action="none")
    while True:
        try:
            return _train(task, batches, config, workdir, profile, evaluation, checkup)
        except RollBack as found:
            if is_first():
                note_rollback(workdir, found)
            wait_for_all("rollback")


def _train(
    task: Task,
    batches: Batches,
    config: Mapping[str, Any],
    workdir: Path,
    profile: bool,
    evaluation: Evaluates | None,
    checkup: Checkup,
) -> int:
    """Train until the planned end, a signal, or a roll-back."""
    if is_first():
        drop_undone(workdir)
    run = prepare(task, batches, config, workdir)
    lines = past_lines(workdir, run.start)
    afterwards = task.afterwards.format(workdir=shlex.quote(str(workdir)))
    if run.start >= run.plan.end and not run.unlogged:
        what = "finished" if run.start >= run.plan.total else "has reached stop_after"
        log.info("this run %s at step %d; %s", what, run.start, afterwards)
        return 0
    images = batches.batch_size * batches.minibatches
    checkpoints = Checkpoints(
        workdir / "checkpoints", keep_last=config["checkpoint"]["keep_last"], keep_every=run.plan.keep_every
    )
    if is_first():
        checkpoints.clear_partial()
        checkpoints.set_aside(after=run.start)
        if not run.start:
            write_atomically(workdir / "data.json", json.dumps(batches.identity).encode())
            if saved := tokenizer_of(batches.features):
                write_atomically(workdir / "tokenizer.json", saved.encode())
    log.info(
        "%s step %d of %d; %d examples in an epoch, %d in a step; %s",
        "continuing after" if run.start else "starting at",
        run.start,
        run.plan.end,
        batches.length,
        images,
        describe_mesh(run.shardings.mesh),
    )
    checkup.start(workdir, lines, run.shardings, run.plan.checkpoint_every)
    compiled = Step(task, batches.fetch, run.state_shardings, run.shardings)
    interrupts = Interrupts()
    with (
        handled(interrupts.receive),
        contextlib.closing(checkpoints),
        contextlib.closing(batches.from_step(run.start)) as ahead,
        contextlib.closing(Records(workdir, run.start, config)) if is_first() else contextlib.nullcontext() as records,
        contextlib.closing(TrainingProgress(run.start, run.plan.end, images)) as progress,
        _trace(workdir, profile),
        jax.transfer_guard_host_to_device("disallow"),
    ):
        reached, signal = _run_steps(
            task, run, compiled, ahead, checkpoints, records, progress, interrupts, evaluation, checkup
        )
    if reached < run.plan.end or signal:
        log.info("saved at step %d; the same command continues", reached)
        return signal
    log.info("done; %s", afterwards)
    return 0


def _run_steps(
    task: Task,
    run: Run,
    compiled: Step,
    batches: Iterator[Any],
    checkpoints: Checkpoints,
    records: Records | None,
    progress: TrainingProgress,
    interrupts: Interrupts,
    evaluation: Evaluates | None,
    checkup: Checkup,
) -> tuple[int, int]:
    """Run steps until the planned end or the first signal. Returns the last step, which is saved, and the signal.

    A signal interrupts an evaluation. The metrics of its step are then saved with the state, as 'unlogged', and the
    process that continues evaluates first: the run's records are those of one that was never stopped.
    """
    plan, state = run.plan, run.state
    previewed = task if isinstance(task, Previewed) else None
    if previewed:
        preview = run.shardings.jit(previewed.preview, out_shardings=run.shardings.replicated)
    unchecked: tuple[int, jax.Array] | None = None  # a step whose finiteness was not checked yet
    waited, since = 0.0, time.perf_counter()
    vote = stop_vote(run.shardings.mesh)

    def log_line(values: dict[str, float], evaluates: bool) -> int:
        """Evaluate if due, and record the step. Returns the signal that interrupted this, or 0."""
        nonlocal waited, since
        if evaluates:
            assert evaluation is not None
            figures = evaluation(state, run.shardings, lambda: vote(interrupts.signal))
            if figures is None:
                return vote(interrupts.signal)
            values = values | figures
            if records is not None:
                records.card(step, evaluation.card(step, figures))
        verdicts = checkup.judged({"step": step, **values})
        values = values | {f"verdict/{verdict.name}": 1.0 for verdict in verdicts}
        progress.report(step, values)
        share = waited / (time.perf_counter() - since)
        if records is not None:
            records.scalars(step, values, progress.images_per_second, waiting_for_data=share)
        waited, since = 0.0, time.perf_counter()
        checkup.act(verdicts)
        return 0

    def refuse_non_finite(step: int, finite: jax.Array) -> None:
        try:
            compiled.refuse_non_finite(step, finite, run.workdir)
        except NotFinite as error:
            if checkup.action == "roll_back":
                checkup.roll_back(str(error), step)
            raise

    step, signal, cut = run.start, 0, 0
    if run.unlogged:
        signal = cut = log_line(run.unlogged, evaluates=evaluation is not None)
    ends = step >= plan.end or bool(signal)
    while not ends:
        step += 1
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        batch = put_global(batch, run.shardings.batch)
        state, metrics, finite = compiled(state, run.resident, batch, run.key)
        progress.advance(step)
        if unchecked is not None:  # one step late, so that the device is never idle
            refuse_non_finite(*unchecked)
        unchecked = step, finite

        evaluates = evaluation is not None and (_due(step, evaluation.every) or step == plan.total)
        logs = _due(step, plan.log_every) or evaluates or checkup.due(step)
        draws = previewed is not None and (_due(step, plan.samples_every) or step == plan.total)
        signal = vote(interrupts.signal)
        ends = step == plan.end or bool(signal)
        saves = _due(step, plan.checkpoint_every) or ends
        if logs or draws or saves:
            refuse_non_finite(step, finite)
        values: dict[str, float] = {}
        if logs:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if checkup.due(step):
                values |= checkup.examined(state, run.key)
            cut = log_line(values, evaluates)
        if cut:
            signal, ends, saves = cut, True, True
        if draws:
            shown = jax.device_get(preview(state, run.key))
            if records is not None and previewed is not None:
                records.samples(step, previewed.show(shown))
        checkpoints.check()
        if saves:
            if records is not None:
                records.flush()
            checkpoints.protected = checkup.healthy
            checkpoints.save(step, state, run.meta | {"unlogged": values if cut else {}})
    checkpoints.wait()
    wait_for_all("end")  # else the first to finish would wait for the others for at most one heartbeat
    return step, signal if step < plan.end else cut


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


@contextlib.contextmanager
def _trace(workdir: Path, wanted: bool) -> Iterator[None]:
    """Record a profiler trace of the run under `workdir/profile`, if wanted."""
    if not wanted:
        yield
        return
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # its events would fill the trace before the first step ends
    with jax.profiler.trace(str(workdir / "profile"), profiler_options=options):
        yield
    log.info("wrote a trace: open %s with TensorBoard's profile plugin or ui.perfetto.dev", workdir / "profile")
