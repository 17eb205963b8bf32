"""Reads a sweep file: its runs with their overrides, stable names, folders and progress.

A sweep file is Python:

    BASE = "configs/vit_mnist.py"     # the config of every run
    FIXED = {"duration": "3 epochs"}  # optional: overrides of all runs, not part of their names
    METRIC = "eval/accuracy"          # the leaderboard's order; HIGHER_IS_BETTER = False reverses it
    def sweep(): yield from grid({"optimizer.learning_rate": [1e-3, 3e-3], "seed": [0, 1]})

A run that starts from the weights of another run of the sweep has `"init_from": draws.run_of(its overrides)`. A run of
another config than BASE has `"BASE": "configs/NAME.py"` among its overrides. `"NAME": "from scratch"` is only what the
names of a run and its folder begin with.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from gormley_vision import durations
from gormley_vision.command_line import load_config_file, read
from gormley_vision.config import (
    TYPE_NAMES,
    changed_keys,
    check_arg,
    flatten,
    reset_unread,
    run_config,
    shrink,
    step_images,
)
from gormley_vision.errors import UserError
from gormley_vision.files import read_json
from gormley_vision.sweeps.draws import RUN_OF
from gormley_vision.user_code import blamed, load_python

_EXAMPLE = '{"optimizer.learning_rate": 1e-3, "seed": 1}'
_LONGEST_NAME = 100  # characters; file systems allow 255 bytes


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run of a sweep."""

    name: str
    folder: Path
    overrides: Mapping[str, Any]
    flags: tuple[str, ...]  # for train.py, all but --workdir
    config: Mapping[str, Any]
    after: tuple[str, ...] = ()  # runs of the sweep that must have ended before, since this one reads their files


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked."""

    name: str
    folder: Path
    metric: str
    higher_is_better: bool
    runs: tuple[Run, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One run on the leaderboard."""

    name: str
    state: str
    overrides: Mapping[str, Any]
    config: Mapping[str, Any]
    folder: Path
    lines: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    final: Mapping[str, float]  # metrics of the last step with the sweep's metric, and that step

    @property
    def verdicts(self) -> str:
        """The verdicts on the run's health with their steps (docs/health.md), such as 'collapse at 900'.

        Those after which the run went back are no longer among its lines, but in its rollbacks.json.
        """
        found, undone = [], self.folder / "rollbacks.json"
        for entry in read_json(undone) if undone.is_file() else ():
            why = re.match(r"step \d+: ([^:(]*[^:( ])", entry["why"])
            found.append(f"back from {entry['step']} to {entry['to']}" + (f" ({why[1]})" if why else ""))
        found += (
            f"{key.removeprefix('verdict/').replace('_', ' ')} at {line['step']}"
            for line in self.lines
            for key in line
            if key.startswith("verdict/")
        )
        return ", ".join(found)


def load_sweep(path: Path, folder: Path, arg: str = "") -> Sweep:
    """Read a sweep file, whose runs have subfolders of `folder`. With `arg` 'smoke' each run shrinks to seconds.

    Raises:
        UserError: a wrong key or value, the same run twice, or a folder of a run with another config.
    """
    module = load_python(path)
    missing = [name for name in ("BASE", "METRIC", "sweep") if not hasattr(module, name)]
    if missing:
        if hasattr(module, "get_config"):
            raise UserError(f"{path} is not a sweep but an experiment: python train.py --config={path}")
        raise UserError(f"{path} does not define {', '.join(missing)}: see configs/sweeps/ for examples")
    fixed, better = getattr(module, "FIXED", {}), getattr(module, "HIGHER_IS_BETTER", True)
    for name, value, kind in (
        ("BASE", module.BASE, str),
        ("METRIC", module.METRIC, str),
        ("HIGHER_IS_BETTER", better, bool),
    ):
        if type(value) is not kind:
            raise UserError(f"{path}: {name} = {value!r} needs {TYPE_NAMES[kind]}")
    _refuse_other_than_overrides(fixed, f"{path}: FIXED = {fixed!r}")
    if not callable(module.sweep):
        raise UserError(f"{path}: sweep is a {type(module.sweep).__name__}; make it a function that yields overrides")
    with blamed(path):
        yielded = module.sweep()
        if not isinstance(yielded, Iterable):
            raise UserError(f"sweep() returns {yielded!r}: let it yield overrides, as in yield {_EXAMPLE}")
        swept = list(yielded)
    for overrides in swept:
        _refuse_other_than_overrides(overrides, f"{path}: sweep() yields {overrides!r}")
    runs = []
    for overrides in swept:
        try:
            runs.append(_make_run(module.BASE, fixed, overrides, folder, check_arg(arg)))
        except UserError as error:
            raise UserError(f"{path}: sweep() yields {overrides!r}: {error}") from error
    names = [run.name for run in runs]
    if not names:
        raise UserError(f"{path}: sweep() yields nothing")
    if absent := sorted({name for run in runs for name in run.after} - set(names)):
        raise UserError(f"{path}: sweep() yields runs that start from these, which it does not yield: {absent}")
    if never := _never_started(runs):
        raise UserError(f"{path}: these start from themselves or from each other: {', '.join(never)}")
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{path}: sweep() yields these twice: {', '.join(sorted(twice))}")
    for run in runs:
        _refuse_another_config(run)
    if module.METRIC.startswith("eval/") and not any(run.config["eval"]["split"] for run in runs):
        raise UserError(f"{path}: METRIC = {module.METRIC!r}, and the runs evaluate nothing: set eval.split")
    return Sweep(path.stem, folder, module.METRIC, better, tuple(runs))


def _refuse_other_than_overrides(found: Any, what: str) -> None:
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{what}: write keys and their values, as in {_EXAMPLE}")
    for key, value in found.items():
        if not isinstance(value, str | Real):
            raise UserError(f"{what}: {key!r} needs one value, true or false, a number or text")


def _make_run(base: str, fixed: Mapping[str, Any], overrides: Mapping[str, Any], folder: Path, smoke: bool) -> Run:
    settings, after = {**fixed, **overrides}, []
    base = settings.pop("BASE", base)
    settings.pop("NAME", None)
    for key, value in settings.items():
        if str(value).startswith(RUN_OF):
            try:
                named, end = json.JSONDecoder().raw_decode(value, len(RUN_OF))
            except ValueError:
                raise UserError(f"{key}={value!r}: write run_of(OVERRIDES), of gormley_vision.sweeps.draws") from None
            after.append(run_name({name: _word(v) for name, v in named.items()}))
            settings[key] = f"{folder / after[-1]}{value[end:]}"
    config = _configured(base, settings)
    if smoke:  # the sweep's own settings shrink, too, for instance its duration: pass the shrunk values as flags
        base, shrunk = f"{base}:smoke", flatten(shrink(config))
        if after and "init_from" in settings:
            shrunk["init_from"] = settings["init_from"]
        usual = flatten(load_config_file(base))  # values that need no flag
        settings = {key: value for key, value in shrunk.items() if value != usual[key]}
        config = _configured(base, settings)
    name = run_name({key: _word(value) for key, value in overrides.items()})
    return Run(name, folder / name, dict(overrides), _flags(base, settings), config.to_dict(), tuple(after))


def _never_started(runs: Sequence[Run]) -> list[str]:
    """Return the runs that wait for themselves, directly or by way of others."""
    waiting = {run.name: set(run.after) for run in runs}
    while ready := [name for name, after in waiting.items() if not after & waiting.keys()]:
        for name in ready:
            del waiting[name]
    return sorted(waiting)


def _flags(base: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"--config={base}", *(f"--config.{key}={_word(value)}" for key, value in settings.items()))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _configured(base: str, settings: Mapping[str, Any]) -> Any:
    """Return the config that train.py makes from these flags."""
    experiment, _ = read(_flags(base, settings))
    reset_unread(experiment.config, experiment.given)
    return experiment.config


def run_name(words: Mapping[str, str]) -> str:
    """Return 'optimizer.name=muon,seed=0', the same for the same overrides in any order, after the override NAME."""
    named = [words["NAME"]] if "NAME" in words else []
    exact = ",".join(named + [f"{key}={words[key]}" for key in sorted(words) if key != "NAME"]) or "base"
    name = re.sub(r"[^\w.=,+-]", "_", exact)[:_LONGEST_NAME]
    return name if name == exact else f"{name}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def _refuse_another_config(run: Run) -> None:
    """Refuse a folder of the same name that has a run of another base."""
    if (run.folder / "config.json").exists() and (changes := changed_keys(run_config(run.folder), run.config)):
        raise UserError(
            f"{run.folder} was started with another config:\n  "
            + "\n  ".join(changes)
            + "\npass another --workdir, or move that folder away"
        )


def steps_of(run: Run) -> tuple[int, int]:
    """Return the step of the newest checkpoint, and the step at which the run ends; (0, 0) without a checkpoint."""
    step, meta = _newest_checkpoint(run)
    if not step:
        return 0, 0
    images = {"epoch_images": meta["data"]["length"], "step_images": step_images(run.config)}
    ends = [durations.to_steps(run.config[key], **images) for key in ("duration", "stop_after")]
    return step, min(end for end in ends if end)


def _newest_checkpoint(run: Run) -> tuple[int, dict[str, Any]]:
    """Return step and meta.json of the newest checkpoint with a readable meta.json; (0, {}) if there is none."""
    steps = [int(path.name) for path in (run.folder / "checkpoints").glob("*") if path.name.isdigit()]
    for step in sorted(steps, reverse=True):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, UserError):  # a damaged one
            return step, read_json(run.folder / "checkpoints" / str(step) / "meta.json")
    return 0, {}


def is_done(run: Run) -> bool:
    """Return whether the run has reached its end, and its last evaluation was not interrupted."""
    step, end = steps_of(run)
    if not step or step < end:
        return False
    _, meta = _newest_checkpoint(run)
    return not meta.get("unlogged") or any(line["step"] == step for line in metrics_of(run.folder))


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl, without a last line that a kill cut short."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    parsed = []
    for line in lines:
        try:
            parsed.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return parsed
