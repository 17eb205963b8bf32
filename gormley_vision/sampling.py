"""From a run's folder back to a generator, with nothing but the folder."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision import experiment
from gormley_vision.config import upgraded
from gormley_vision.errors import UserError
from gormley_vision.files import user_path
from gormley_vision.randomness import run_key
from gormley_vision.tasks.gan import GAN
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.task import Task, first_state

BATCH = 64  # every call runs this many, so that an image's bits do not depend on how many are asked for


@dataclasses.dataclass(frozen=True)
class Restored:
    """A trained run.

    For a GAN, `generate(variables, noise [B, Z], labels int [B] or None)` is the pure generator function, to
    images [B, H, W, C] in [-1, 1]; `variables` are its averaged parameters and running statistics, and
    `raw_variables` the unaveraged ones.
    """

    config: dict[str, Any]
    step: int
    class_names: tuple[str, ...]
    task: Task
    state: Any

    @property
    def gan(self) -> GAN:
        """The task, if it generates.

        Raises:
            UserError: it does not.
        """
        if not isinstance(self.task, GAN):
            raise UserError(f"a {self.config['task']} run generates no images: pass a GAN's folder")
        return self.task

    @property
    def generate(self) -> Callable[..., jax.Array]:
        """The generator function."""
        return self.gan.generate

    @property
    def variables(self) -> Any:
        """The averaged generator's variables."""
        return self.state.ema

    @property
    def raw_variables(self) -> Any:
        """The generator's own variables."""
        return self.state.generator.variables


def restore(workdir: str | Path, step: int | None = None) -> Restored:
    """Read a run's newest whole checkpoint, or that of `step`. Needs neither its config file nor its data.

    Raises:
        UserError: no such run or step, or the code has moved on since: lists the parameters that differ.
    """
    folder = user_path(workdir) / "checkpoints"
    found = ckpt.newest_whole(folder) if step is None else step
    if found is None or found not in ckpt.steps_of(folder):
        there = ", ".join(map(str, ckpt.steps_of(folder))) or "none"
        wanted = "a whole checkpoint" if step is None else f"a checkpoint of step {step}"
        raise UserError(f"no {wanted.removeprefix('a ')} in {folder} (there: {there})")
    checkpoint = folder / str(found)
    if step is not None and (damage := ckpt.find_damage(checkpoint)):
        raise UserError(f"checkpoint {step} is damaged: {damage}")
    meta = ckpt.read_meta(checkpoint)
    names, config = tuple(meta["data"]["class_names"]), upgraded(meta["config"])
    task = experiment.make_task(config, class_names=names, epoch_images=meta["data"]["length"])
    shapes = jax.eval_shape(partial(first_state, task), jax.random.key(0))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return Restored(config, found, names, task, ckpt.restore(checkpoint, shapes, lambda *_: sharding))


def sample(
    run: Restored, *, num: int, seed: int = 0, label: int | str | None = None, raw: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """`num` images float32 [num, H, W, C] in [-1, 1], and their labels int32 [num] where conditional.

    Image i depends on `seed` and i alone. Labels are `label` throughout, or one class after the other.
    """
    gan, ids = run.gan, np.arange(num)
    labels = choose_labels(run, ids, label)
    return _generate(run, _noise(gan, seed, num), labels, raw), labels


def interpolate(
    run: Restored, *, rows: int, columns: int, seed: int = 0, label: int | str | None = None, raw: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Walks between pairs of noise vectors, a walk a row: float32 [rows * columns, H, W, C].

    Along the great circle (White 2016, arXiv:1609.04468): a straight line between two Gaussian vectors
    passes lengths that the generator never saw.
    """
    gan, row = run.gan, np.repeat(np.arange(rows), columns)
    labels = choose_labels(run, row, label)
    ends = _noise(gan, seed, 2 * rows).reshape(rows, 2, -1)
    noise = np.concatenate([great_circle(a, b, np.linspace(0, 1, columns)) for a, b in ends])
    return _generate(run, noise, labels, raw), labels


def great_circle(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points [len(t), Z] from `a` (t = 0) to `b` (t = 1), turning at constant speed."""
    cosine = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:  # (anti)parallel: no circle is singled out
        return a + t[:, None] * (b - a)
    return (np.sin((1 - t) * angle)[:, None] * a + np.sin(t * angle)[:, None] * b) / np.sin(angle)


def choose_labels(run: Restored, ids: np.ndarray, label: int | str | None) -> np.ndarray | None:
    """int32 labels: `label` throughout, or classes in turn; None for an unconditional run.

    `label` is a class's number, or as text its name or else its number.

    Raises:
        UserError: no such class.
    """
    names = run.gan.class_names
    if not names:
        if label is not None:
            raise UserError("this run is unconditional: leave out --label")
        return None
    if label is None:
        return (ids % len(names)).astype(np.int32)
    known = {str(number): number for number in range(len(names))}
    known |= {name: number for number, name in enumerate(names)} if isinstance(label, str) else {}
    if str(label) not in known:
        listed = ", ".join(f"{number}: {name}" for number, name in enumerate(names))
        raise UserError(f"--label={label}: the classes are {listed}")
    return np.full(len(ids), known[str(label)], np.int32)


def _noise(gan: GAN, seed: int, count: int) -> np.ndarray:
    draw, key = jax.jit(gan.noise), run_key(seed)
    parts = [draw(key, jnp.arange(start, start + BATCH)) for start in range(0, count, BATCH)]
    return np.concatenate(parts)[:count]


def _generate(run: Restored, noise: np.ndarray, labels: np.ndarray | None, raw: bool) -> np.ndarray:
    generate = jax.jit(partial(run.generate, run.raw_variables if raw else run.variables))
    images = []
    for start in range(0, len(noise), BATCH):
        part = slice(start, start + BATCH)
        padding = BATCH - len(noise[part])
        padded = np.pad(noise[part], ((0, padding), (0, 0))).astype(np.float32)
        padded_labels = None if labels is None else np.pad(labels[part], (0, padding))
        images.append(np.asarray(generate(padded, padded_labels))[: BATCH - padding])
    return np.concatenate(images)
