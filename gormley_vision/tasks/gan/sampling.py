"""Sampling: image i of a seed is the same image however many are requested."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.errors import UserError
from gormley_vision.randomness import run_key
from gormley_vision.samples import Pictures

if TYPE_CHECKING:
    from gormley_vision.tasks.gan.task import GAN, Variables

BATCH = 64  # every call runs this many, so that an image's bits do not depend on `num`
WALK = 8  # images in one interpolation


def sampled(gan: "GAN", variables: "Variables", *, num: int, seed: int, label: str) -> Pictures:
    """Generate `num` images, of class `label` or of all classes in turn."""
    labels = choose_labels(gan.class_names, np.arange(num), label)
    images = _generate(gan, variables, _noise(gan, seed, num), labels)
    return Pictures(images, labels, gan.class_names)


def interpolated(gan: "GAN", variables: "Variables", *, num: int, seed: int, label: str) -> Pictures:
    """Interpolate between pairs of noise vectors, a row of `WALK` images each; `num` is rounded up to full rows.

    Along the great circle (White 2016, arXiv:1609.04468): a straight line between two Gaussian vectors
    passes through norms that the generator never saw.
    """
    rows = -(-num // WALK)
    labels = choose_labels(gan.class_names, np.repeat(np.arange(rows), WALK), label)
    ends = _noise(gan, seed, 2 * rows).reshape(rows, 2, -1)
    noise = np.concatenate([great_circle(a, b, np.linspace(0, 1, WALK)) for a, b in ends])
    return Pictures(_generate(gan, variables, noise, labels), labels, gan.class_names, columns=WALK)


def great_circle(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return points [len(t), Z] from `a` (t = 0) to `b` (t = 1), at constant angular speed."""
    cosine = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:  # (anti)parallel: the circle is not unique
        return a + t[:, None] * (b - a)
    return (np.sin((1 - t) * angle)[:, None] * a + np.sin(t * angle)[:, None] * b) / np.sin(angle)


def choose_labels(class_names: Sequence[str], ids: np.ndarray, label: str) -> np.ndarray | None:
    """Return int32 labels: all `label` (a class's name, else its number), or classes in turn; None without classes.

    Raises:
        UserError: there is no such class.
    """
    if not class_names:
        if label:
            raise UserError("this run is unconditional: leave out --label")
        return None
    if not label:
        return (ids % len(class_names)).astype(np.int32)
    known = {str(number): number for number in range(len(class_names))}
    known |= {name: number for number, name in enumerate(class_names)}
    if label not in known:
        classes = ", ".join(f"{number}: {name}" for number, name in enumerate(class_names))
        raise UserError(f"--label={label}: the classes are {classes}")
    return np.full(len(ids), known[label], np.int32)


def _noise(gan: "GAN", seed: int, count: int) -> np.ndarray:
    draw, key = jax.jit(gan.noise), run_key(seed)
    parts = [draw(key, jnp.arange(start, start + BATCH)) for start in range(0, count, BATCH)]
    return np.concatenate(parts)[:count]


def _generate(gan: "GAN", variables: "Variables", noise: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    generate = jax.jit(partial(gan.generate, variables))
    images = []
    for start in range(0, len(noise), BATCH):
        part = slice(start, start + BATCH)
        padding = BATCH - len(noise[part])
        padded = np.pad(noise[part], ((0, padding), (0, 0))).astype(np.float32)
        padded_labels = None if labels is None else np.pad(labels[part], (0, padding))
        images.append(np.asarray(generate(padded, padded_labels))[: BATCH - padding])
    return np.concatenate(images)
