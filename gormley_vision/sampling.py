"""Restores a trained model from a run's folder, and samples from it."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision import experiment, task_modules
from gormley_vision.config import fault_of, nearest, upgraded
from gormley_vision.data.features import Description, from_json
from gormley_vision.errors import UserError
from gormley_vision.files import user_path
from gormley_vision.samples import Samples
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.start import WEIGHTS
from gormley_vision.training.task import Evaluated, Sampled, Streamed, Task, Transferred, Translates, first_state


@dataclasses.dataclass(frozen=True)
class Restored:
    """A trained run: its task, whose functions are pure, and the state at step `step`.

    For a GAN, `task.generate(state.ema, noise [B, Z], labels int [B] or None)` returns images [B, H, W, C] in [-1, 1]
    by the averaged generator; `state.generator.variables` are the unaveraged ones.
    """

    config: dict[str, Any]
    step: int
    class_names: tuple[str, ...]
    task: Task
    state: Any


def restore(workdir: str | Path, step: int | None = None) -> Restored:
    """Read a run's newest complete checkpoint, or that of `step`. Needs neither its config file nor its data.

    Raises:
        UserError: there is no such run or step, or it does not fit this code. Lists the parameters that differ.
    """
    folder = user_path(workdir) / "checkpoints"
    found = ckpt.newest_complete(folder) if step is None else step
    if found is None or found not in ckpt.steps_of(folder):
        wanted = "undamaged checkpoint" if step is None else f"checkpoint of step {step}"
        raise UserError(ckpt.no_checkpoint_message(user_path(workdir), wanted))
    checkpoint = folder / str(found)
    if step is not None and (damage := ckpt.find_damage(checkpoint)):
        raise UserError(f"checkpoint {step} is damaged: {damage}")
    meta = ckpt.read_meta(checkpoint)
    names, config = tuple(meta["data"]["class_names"]), upgraded(meta["config"])
    length, features = meta["data"]["length"], meta["data"].get("features")
    # Earlier versions did not save features: they had images, with or without labels.
    older = experiment.described(config, names, length) if features is None else None
    task = experiment.make_task(config, older or Description(from_json(features), length))
    shapes = jax.eval_shape(partial(first_state, task), jax.random.key(0))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return Restored(config, found, names, task, ckpt.restore(checkpoint, shapes, lambda *_: sharding))


def sample(run: Restored, *, num: int, seed: int = 0, first: int = 0, **options: Any) -> Samples:
    """Return `num` samples: a GAN's pictures, a language model's texts. Its module's SAMPLING lists the options.

    Sample i depends only on `seed`, the options and i; pictures can start with sample `first`.

    Raises:
        UserError: the run cannot be sampled, or an option makes no sense for it.
    """
    task, chosen = _sampled(run, num, options)
    if not first:
        return task.sample(run.state, num=num, seed=seed, **chosen)
    if "first" not in inspect.signature(task.sample).parameters:
        raise UserError(f"the task {run.config['task']!r} only samples from number 0 on: its `sample` lacks `first`")
    return task.sample(run.state, num=num, seed=seed, first=first, **chosen)


def stream(run: Restored, *, seed: int = 0, **options: Any) -> Iterator[str] | None:
    """Yield the first text that `sample` returns, in pieces; None if the run's samples are not texts.

    Raises:
        UserError: as `sample`.
    """
    task, chosen = _sampled(run, 1, options)
    return task.stream(run.state, seed=seed, **chosen) if isinstance(task, Streamed) else None


def _sampled(run: Restored, num: int, options: Mapping[str, Any]) -> tuple[Sampled, dict[str, Any]]:
    """Return the run's task, and the options of its module with their defaults."""
    if not isinstance(run.task, Sampled):
        translates = isinstance(run.task, Translates)
        instead = "scripts/translate.py translates by it" if translates else "pass one that can, such as a GAN's"
        raise UserError(f"a run of {run.config['task']} cannot be sampled: {instead}")
    if num < 1:
        raise UserError(f"{num} samples: request at least 1")
    fields = task_modules.find(run.config["task"]).SAMPLING
    for name, value in options.items():
        if name not in fields:
            raise UserError(f"--{name}: no such option of a {run.config['task']} run; {nearest(name, fields)}")
        if fault := fault_of(value, fields[name]):
            raise UserError(f"--{name}={value}: {fault} ({fields[name].meaning})")
    return run.task, {name: field.default for name, field in fields.items()} | dict(options)


def adapted(run: Restored, config: Mapping[str, Any], data: Description) -> tuple[Evaluated, Any]:
    """Return the task of another `config` on `data`, and its state with the run's weights: for another resolution.

    Raises:
        UserError: the weights do not fit.
    """
    task = experiment.make_task(config, data)
    shapes = jax.eval_shape(partial(first_state, task), jax.random.key(0))
    assert isinstance(task, Evaluated)
    if not isinstance(task, Transferred):
        return task, run.state
    weights = {name: x for name, x in ckpt.flat(run.state).items() if WEIGHTS & set(name.split("/"))}
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)  # for optimizers: evaluation does not read them
    weights = task.transfer(weights, zeros, config=run.config, class_names=run.class_names)
    return task, ckpt.merge(zeros, weights, WEIGHTS, Path(f"the checkpoint of step {run.step}"))
