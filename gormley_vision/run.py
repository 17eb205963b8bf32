"""One run in its folder: what `train.py` does after its flags are checked."""

import contextlib
import errno
import fcntl
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import absl.logging
import jax

from gormley_vision import experiment
from gormley_vision.errors import UserError
from gormley_vision.training import hosts, loop, progress


def use_compilation_cache() -> None:
    """Keep compiled programs in ~/.cache/gormley_vision/xla, unless JAX_COMPILATION_CACHE_DIR says otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(root / "gormley_vision" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def run(config: Mapping[str, Any], workdir: Path, profile: bool = False) -> int:
    """Train `config` in `workdir`, or continue there; returns the exit status of the process.

    Each of several processes (`hosts.join`) calls it with the same arguments; the first owns the folder and the log.

    Raises:
        UserError: whatever the user can mend, before anything long starts where that can be known.
    """
    experiment.check(config)
    with naming(workdir), locked(workdir) if hosts.is_first() else contextlib.nullcontext():
        if hosts.is_first():
            log_to(workdir / "run.log", progress.console_handler())
        use_compilation_cache()
        with progress.counted("decoding images") as report:
            batches = experiment.make_batches(config, report)
        task = experiment.make_task(config, class_names=batches.class_names, epoch_images=batches.length)
        with progress.counted("decoding images to evaluate on") as report:
            evaluation = experiment.make_evaluation(config, task, batches, report)
        signal = loop.train(task, batches, config, workdir, profile, evaluation)
    return 128 + signal if signal else 0


@contextlib.contextmanager
def naming(workdir: Path) -> Iterator[None]:
    """Let a full disk be named: what is flushed to a file fails without telling which."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and error.filename is None:
            error.filename = str(workdir)
        raise


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Own the run's folder while the block runs; the system gives it up however the process ends.

    Raises:
        UserError: another process owns it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process trains in {workdir}: wait for it, or pass another --workdir") from None
        yield


def log_to(path: Path, extra: logging.Handler) -> None:
    """Send the package's log to a file with times, and to `extra` (the console) as it is."""
    # Orbax tells a dozen lines a checkpoint, and raises its errors to us besides logging them with traces.
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    logger = logging.getLogger("gormley_vision")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _LogFile(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(file)
    logger.addHandler(extra)


class _LogFile(logging.FileHandler):
    """Raises what goes wrong, a full disk above all, where logging would print a trace and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # called while the error is being handled


def _unraisable(fault: Any) -> None:
    """Python's hook, but for tensorstore's callbacks, which outlive orbax's event loop when a write failed."""
    if str(fault.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(fault)
