"""Trains one run in its folder: what `train.py` does after checking its flags."""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from gormley_vision import experiment, logs, sample_evaluation
from gormley_vision.config import flatten, validate
from gormley_vision.errors import UserError, naming
from gormley_vision.files import home_cache
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training import hosts, loop, progress
from gormley_vision.training.trackers import refuse_missing


def start_jax() -> None:
    """Set up logging, the devices and the compilation cache; every program calls this first.

    Compiled programs are cached in ~/.cache/gormley_vision/xla, unless JAX_COMPILATION_CACHE_DIR is set.

    Raises:
        UserError: an environment variable prevents it. Names it.
    """
    logs.to_console(progress.console_handler())
    _refuse_environment()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        if not (wanted := os.environ.get("JAX_PLATFORMS")):
            raise
        why = str(error).partition(" (set JAX_PLATFORMS")[0] or "jax finds no such device"
        raise UserError(f"JAX_PLATFORMS={wanted}: {why}; unset it, and jax uses the best available device") from None
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(home_cache() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _refuse_environment() -> None:
    """Refuse variables with which nothing can run. XLA aborts on wrong flags, so another process tries them."""
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        raise UserError("JAX_DISABLE_JIT is set, but training compiles its steps: unset it")
    if not (flags := os.environ.get("XLA_FLAGS")):
        return
    program = "from jaxlib import xla_client; xla_client.CompileOptions().executable_build_options.debug_options"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    faults = [line.partition("] ")[2] for line in done.stderr.splitlines() if re.match(r"[EF]\d{4} ", line)]
    if done.returncode and faults:
        raise UserError(f"XLA_FLAGS={flags}: {faults[0]}; fix or unset it")


def run(config: Mapping[str, Any], workdir: Path, profile: bool = False) -> int:
    """Train `config` in `workdir`, or continue there. Returns the exit status of the process.

    All processes of a run (`hosts.initialize`) call it with the same arguments; the first owns the folder and log.

    Raises:
        UserError: anything that the user can fix, if possible before anything slow starts.
    """
    validate(config)
    refuse_missing(config["log"]["tracker"])
    ckpt.orbax_path(workdir)
    start_jax()
    with naming(workdir), locked(workdir) if hosts.is_first() else contextlib.nullcontext():
        if hosts.is_first():
            logs.to_file(workdir / "run.log")
        with progress.counted("reading examples") as report:
            batches = experiment.make_batches(config, report)
        task = experiment.make_task(config, batches.description)
        with progress.counted("reading examples to evaluate on") as report:
            evaluation = experiment.make_evaluation(config, task, batches, report) or sample_evaluation.of_training(
                config, task, batches, report
            )
        checkup = experiment.make_checkup(config, task, batches)
        with fitting(config):
            signal = loop.train(task, batches, config, workdir, profile, evaluation, checkup)
    return 128 + signal if signal else 0


@contextlib.contextmanager
def fitting(config: Mapping[str, Any]) -> Iterator[None]:
    """If the memory of a device is full, say what would make a step fit.

    Raises:
        UserError: the memory is full.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
            raise
        smaller = [f"--config.data.batch_size={max(1, config['data']['batch_size'] // 2)}"]
        smaller += [f"--config.accumulate={2 * config['accumulate']} (the same batch, in smaller parts)"]
        remat = {key: value for key, value in flatten(config).items() if key.endswith(".remat")}
        smaller += [f"--config.{key}=true" for key, value in remat.items() if not value]
        raise UserError(
            f"the memory of a device is full ({' '.join(str(error).splitlines()[0].split())[:200]}). Pass "
            f"{', or '.join(smaller)}; python scripts/plan.py shows how much a config needs"
        ) from None


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Lock the run's folder while the block runs; the system releases it however the process ends.

    Raises:
        UserError: another process has locked it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{workdir} is a file, but a run needs a folder: pass another --workdir") from None
    for name in ("checkpoints", "cards", "samples", "tensorboard"):
        if (workdir / name).exists() and not (workdir / name).is_dir():
            raise UserError(f"{workdir / name} is a file, but a run needs a folder there: move it away")
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process trains in {workdir}: wait for it, or pass another --workdir") from None
        yield
