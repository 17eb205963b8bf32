"""One run in its folder: what `train.py` does after its flags are checked."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from gormley_vision import experiment, logs
from gormley_vision.errors import UserError, naming
from gormley_vision.files import home_cache
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training import hosts, loop, progress


def start_jax() -> None:
    """What every program does before it computes: tell of what happens, find the devices, keep compiled programs.

    These are kept in ~/.cache/gormley_vision/xla, unless JAX_COMPILATION_CACHE_DIR says otherwise.
    """
    logs.to_console(progress.console_handler())
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(home_cache() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    with logs.native_output_kept():
        jax.devices()


def run(config: Mapping[str, Any], workdir: Path, profile: bool = False) -> int:
    """Train `config` in `workdir`, or continue there; returns the exit status of the process.

    Each of several processes (`hosts.join`) calls it with the same arguments; the first owns the folder and the log.

    Raises:
        UserError: whatever the user can mend, before anything long starts where that can be known.
    """
    experiment.check(config)
    ckpt.orbax_path(workdir)
    start_jax()
    with naming(workdir), locked(workdir) if hosts.is_first() else contextlib.nullcontext():
        if hosts.is_first():
            logs.to_file(workdir / "run.log")
        with progress.counted("decoding images") as report:
            batches = experiment.make_batches(config, report)
        task = experiment.make_task(config, class_names=batches.class_names, epoch_images=batches.length)
        with progress.counted("decoding images to evaluate on") as report:
            evaluation = experiment.make_evaluation(config, task, batches, report)
        signal = loop.train(task, batches, config, workdir, profile, evaluation)
    return 128 + signal if signal else 0


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Own the run's folder while the block runs; the system gives it up however the process ends.

    Raises:
        UserError: another process owns it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{workdir} is a file, and a run needs a folder: pass another --workdir") from None
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process trains in {workdir}: wait for it, or pass another --workdir") from None
        yield
