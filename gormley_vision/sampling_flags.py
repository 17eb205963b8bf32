"""Flags for the sampling options of a run's task, for every program that samples. Loads no jax."""

import argparse
from pathlib import Path

from gormley_vision import task_modules
from gormley_vision.config import run_config
from gormley_vision.fields import Field


def add_sampling_flags(parser: argparse.ArgumentParser, workdir: Path | None) -> dict[str, Field]:
    """Add the options that the run's task lists in SAMPLING, and return them; {} if there is no run in `workdir`."""
    if workdir is None or not (workdir / "config.json").is_file():
        return {}
    options = dict(task_modules.find(run_config(workdir)["task"]).SAMPLING)
    group = parser.add_argument_group("options of this run's task") if options else parser
    for name, field in options.items():
        if isinstance(field.default, bool):
            group.add_argument(f"--{name}", action="store_true", help=field.meaning)
        else:
            group.add_argument(
                f"--{name}",
                type=type(field.default),
                default=field.default,
                choices=field.choices or None,
                help=field.meaning,
            )
    return options
