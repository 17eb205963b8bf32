"""One run in its folder: what `train.py` does after its flags are checked."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from gormley_vision import experiment
from gormley_vision.training import loop, progress, records

log = logging.getLogger(__name__)


def use_compilation_cache() -> None:
    """Keep compiled programs in ~/.cache/gormley_vision/xla, unless JAX_COMPILATION_CACHE_DIR says otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(root / "gormley_vision" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def run(config: Mapping[str, Any], workdir: Path, profile: bool = False) -> int:
    """Train `config` in `workdir`, or continue there; returns the exit status of the process.

    Raises:
        UserError: whatever the user can mend, before anything long starts where that can be known.
    """
    experiment.check(config)
    with records.locked(workdir):
        records.log_to(workdir / "run.log", progress.console_handler())
        use_compilation_cache()
        with progress.counted("decoding images") as report:
            batches = experiment.make_batches(config, report)
        task = experiment.make_task(config, class_names=batches.class_names, epoch_images=batches.length)
        signal = loop.train(task, batches, config, workdir, profile)
    return 128 + signal if signal else 0
