"""Sampling: image i of a seed is the same image however many are requested."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.errors import UserError
from gormley_vision.layers.gan import BATCH_NORM_MOMENTUM
from gormley_vision.randomness import named_key, run_key
from gormley_vision.samples import Pictures, Points

if TYPE_CHECKING:
    from gormley_vision.tasks.gan.task import GAN, Variables

BATCH = 64  # every call runs this many, so that an image's bits do not depend on `num`
WALK = 8  # images in one interpolation


def sampled(
    gan: "GAN",
    variables: "Variables",
    *,
    num: int,
    seed: int,
    first: int = 0,
    label: str = "",
    interpolate: bool = False,
    truncation: float = 0.0,
    standing_statistics: int = 0,
) -> Pictures | Points:
    """Generate `num` examples from number `first` on, of class `label` or of all classes in turn.

    With `interpolate`, a row of `WALK` each between two noise vectors; `num` is then rounded up to full rows. Gaussian
    ones are joined along the great circle (White 2016, arXiv:1609.04468): a straight line passes through norms that the
    generator never saw. Uniform ones are joined by a straight line, which stays within their bounds.

    `truncation` keeps every number of the noise within +-truncation (BigGAN: Brock et al. 2018, arXiv:1809.11096,
    section 3.1): truer and less various. With `standing_statistics` BatchNorm uses the mean statistics of that many
    batches of `BATCH` fakes of that class, or of all in turn, in place of the running ones (the same paper, section
    3.1).

    Raises:
        UserError: an option that makes no sense for this run.
    """
    if standing_statistics:
        variables = _with_standing_statistics(gan, variables, seed, standing_statistics, label)
    draw = partial(_noise, gan, seed, truncation)
    if interpolate:
        rows = -(-num // WALK)
        labels = choose_labels(gan.class_names, np.repeat(np.arange(rows), WALK), label)
        ends = draw(2 * rows).reshape(rows, 2, -1)
        path = great_circle if gan.latent == "normal" else straight
        noise = np.concatenate([path(a, b, np.linspace(0, 1, WALK)) for a, b in ends])
    else:
        labels, noise = choose_labels(gan.class_names, first + np.arange(num), label), draw(num, first)
    made = _generate(gan, variables, noise, labels)
    if gan.example != "image":
        return Points(made, gan.extent, labels=labels)
    return Pictures(made, labels, gan.class_names, columns=WALK if interpolate else 0)


def straight(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return points [len(t), Z] from `a` (t = 0) to `b` (t = 1) on a straight line."""
    return a + t[:, None] * (b - a)


def great_circle(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return points [len(t), Z] from `a` (t = 0) to `b` (t = 1), at constant angular speed."""
    cosine = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:  # (anti)parallel: the circle is not unique
        return straight(a, b, t)
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


def _noise(gan: "GAN", seed: int, truncation: float, count: int, first: int = 0) -> np.ndarray:
    if truncation and gan.latent != "normal":
        raise UserError(f"--truncation={truncation}: this run's noise is {gan.latent}, within bounds: leave it out")

    def truncated(key: jax.Array, ids: jax.Array) -> jax.Array:
        keys = jax.vmap(partial(jax.random.fold_in, named_key(key, "noise/sample")))(ids)
        draw = partial(jax.random.truncated_normal, lower=-truncation, upper=truncation, shape=(gan.latent_size,))
        return jax.vmap(draw)(keys)

    draw, key = jax.jit(truncated if truncation else gan.noise), run_key(seed)
    parts = [draw(key, first + jnp.arange(start, start + BATCH)) for start in range(0, count, BATCH)]
    return np.concatenate(parts)[:count]


def _with_standing_statistics(
    gan: "GAN", variables: "Variables", seed: int, batches: int, label: str = ""
) -> "Variables":
    if not variables["batch_stats"]:
        raise UserError("--standing_statistics: this generator has no BatchNorm: leave it out")
    zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])

    @jax.jit
    def statistics(number: jax.Array, labels: jax.Array | None) -> Any:
        noise = gan.latents(named_key(run_key(seed), "noise/standing", number), BATCH)
        inputs = {**variables, "batch_stats": zeros}
        _, updated = gan.generator.apply(inputs, noise, labels, train=True, mutable=["batch_stats"])
        return jax.tree.map(lambda x: x / (1 - BATCH_NORM_MOMENTUM), updated["batch_stats"])

    found = []
    for number in range(batches):  # classes in turn go on from batch to batch
        labels = choose_labels(gan.class_names, number * BATCH + np.arange(BATCH), label)
        found.append(statistics(jnp.int32(number), labels))
    return {**variables, "batch_stats": jax.tree.map(lambda *x: sum(x) / batches, *found)}


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
