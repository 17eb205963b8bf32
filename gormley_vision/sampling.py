"""From a run's folder back to what it trained, with nothing but the folder."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision import experiment
from gormley_vision.config import upgraded
from gormley_vision.data.features import Description, from_json
from gormley_vision.errors import UserError
from gormley_vision.files import user_path
from gormley_vision.samples import Samples
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.start import WEIGHTS
from gormley_vision.training.task import Evaluated, Sampled, Task, Transferred, first_state


@dataclasses.dataclass(frozen=True)
class Restored:
    """A trained run: its task, whose functions are pure, and the state of step `step`.

    Of a GAN, `task.generate(state.ema, noise [B, Z], labels int [B] or None)` are images [B, H, W, C] in [-1, 1] by the
    averaged generator; `state.generator.variables` are the unaveraged ones.
    """

    config: dict[str, Any]
    step: int
    class_names: tuple[str, ...]
    task: Task
    state: Any


def restore(workdir: str | Path, step: int | None = None) -> Restored:
    """Read a run's newest whole checkpoint, or that of `step`. Needs neither its config file nor its data.

    Raises:
        UserError: no such run or step, or the code has moved on since: lists the parameters that differ.
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
    # Runs of earlier versions noted none: theirs were images, with labels or without.
    of_images = experiment.images_described(config, names, length) if features is None else None
    task = experiment.make_task(config, of_images or Description(from_json(features), length))
    shapes = jax.eval_shape(partial(first_state, task), jax.random.key(0))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return Restored(config, found, names, task, ckpt.restore(checkpoint, shapes, lambda *_: sharding))


def sample(run: Restored, *, num: int, seed: int = 0, **options: Any) -> Samples:
    """`num` samples: of a GAN, pictures, with the options of its module's SAMPLING.

    Sample i depends on `seed`, the options and i alone.

    Raises:
        UserError: a run that makes none, or an option that makes no sense for it.
    """
    if not isinstance(run.task, Sampled):
        raise UserError(f"a {run.config['task']} run makes no samples: pass the folder of a run that does, as a GAN's")
    if num < 1:
        raise UserError(f"{num} samples: ask for at least 1")
    return run.task.sample(run.state, num=num, seed=seed, **options)


def adapted(run: Restored, config: Mapping[str, Any], data: Description) -> tuple[Evaluated, Any]:
    """The task of another `config` on `data`, and its state with the run's weights, as for another resolution.

    Raises:
        UserError: they do not fit.
    """
    task = experiment.make_task(config, data)
    shapes = jax.eval_shape(partial(first_state, task), jax.random.key(0))
    assert isinstance(task, Evaluated)
    if not isinstance(task, Transferred):
        return task, run.state
    weights = {name: x for name, x in ckpt.flat(run.state).items() if WEIGHTS & set(name.split("/"))}
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)  # optimizers', which evaluation does not read
    weights = task.transfer(weights, zeros, config=run.config, class_names=run.class_names)
    return task, ckpt.merge(zeros, weights, WEIGHTS, Path(f"the checkpoint of step {run.step}"))
