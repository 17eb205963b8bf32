"""Compares images with real ones by an extractor's features: of a run while it trains, or of anybody's files.

Every figure has a card: a dict that says how it was measured (training/cards.py).
"""

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gormley_vision import durations, experiment
from gormley_vision.config import flatten, step_images
from gormley_vision.data.batches import Batches
from gormley_vision.errors import UserError
from gormley_vision.extractors import Extractor, open_extractor
from gormley_vision.metrics.image_sets import Summary, distance
from gormley_vision.randomness import named_key, run_key
from gormley_vision.samples import to_uint8
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.cards import card_of, unlike
from gormley_vision.training.environment import code
from gormley_vision.training.hosts import put_global
from gormley_vision.training.records import past_lines
from gormley_vision.training.sharding import Shardings
from gormley_vision.training.task import Generates, Task

log = logging.getLogger(__name__)
Part = tuple[np.ndarray, np.ndarray | None]  # images uint8 [n, H, W, C], labels int [n]

QUANTISATION = "uint8, rounded"


class Features:
    """Computes an extractor's features of images on all devices of a mesh, `batch` images at a time."""

    def __init__(self, extractor: Extractor, shardings: Shardings, batch: int) -> None:
        self._shardings, self.batch = shardings, batch
        self._weights = put_global(extractor.weights, shardings.replicated)
        self._compute = shardings.jit(extractor.features, out_shardings=shardings.replicated)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features [n, D] and probabilities [n, Y] of n <= batch images, uint8 [n, H, W, C]."""
        padded = np.pad(images, [(0, self.batch - len(images)), (0, 0), (0, 0), (0, 0)])
        with jax.transfer_guard_host_to_device("allow"):  # every process has all of them
            spread = jax.make_array_from_callback(padded.shape, self._shardings.examples, padded.__getitem__)
        found = self._compute(self._weights, spread)
        features, probabilities = (np.asarray(x)[: len(images)] for x in jax.device_get(found))
        return features, probabilities

    def summary(self, parts: Iterable[Part], count: int) -> Summary:
        """Return the summary of `count` images, in parts of at most `batch`."""
        summary = Summary(count)
        for images, labels in parts:
            summary.add(*self(images), labels)
        return summary


def random_order(batches: Batches) -> np.ndarray:
    """Return the numbers of all examples, int [N], in the order of `in_random_order`."""
    return np.random.default_rng(0).permutation(batches.length)


def in_random_order(batches: Batches) -> Iterator[Part]:
    """Yield all images of a data set, in a random order that is always the same, and their labels if they have classes.

    Sources are often sorted by class, and some figures are of the first images.
    """
    order = random_order(batches)
    for first in range(0, batches.length, batches.batch_size):
        found = batches.examples(order[first : first + batches.batch_size])
        yield found["image"], found["label"] if batches.class_names else None


def refuse_unfit(extractor: Extractor, batches: Batches, what: str, option: str = "") -> None:
    """Refuse a set of images (`what`) that is a single one, or that the network does not read; see `Extractor.refuse`.

    Raises:
        UserError: says why.
    """
    if batches.length < 2:
        raise UserError(f"there is {batches.length} image in {what}, and a distance between sets needs at least 2")
    try:
        extractor.refuse(batches.image_shape, option)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def warn_of_few(features: int, counts: Mapping[str, int]) -> None:
    """Warn of sets, {what: number}, with fewer images than features: their covariance lacks directions."""
    if few := [f"{count} {what}" for what, count in counts.items() if count < features]:
        log.warning(
            "fewer images than features (%d): %s; the Fréchet distance is mostly bias", features, ", ".join(few)
        )


class SampleEvaluation:
    """The Fréchet distance of a training run's averaged generator to its real images, every `every` steps.

    Its noise differs from that of scripts/sample.py and scripts/evaluate.py with any seed, so a checkpoint that is
    chosen by it is not chosen by the samples that are then reported.
    """

    def __init__(
        self,
        task: Generates,
        extractor: Extractor,
        batches: Batches,
        num: int,
        every: int,
        config: Mapping[str, Any],
    ) -> None:
        refuse_unfit(extractor, batches, f"eval.split={config['eval']['split']}", "--config.data.image_size")
        self.every = every
        self._config = config
        self._task, self._extractor, self._batches, self._num = task, extractor, batches, num
        self._real: Summary | None = None
        self._features: Features | None = None
        self._generate: Callable | None = None

    def __call__(
        self, state: Any, shardings: Shardings, stop: Callable[[], int] = lambda: 0
    ) -> dict[str, float] | None:
        """Return {'eval/frechet_distance': value}; None if `stop`, called before each batch, returns nonzero."""
        batch = self._batches.batch_size
        if self._features is None or self._generate is None:
            self._features = Features(self._extractor, shardings, batch)
            self._generate = shardings.jit(self._generated, out_shardings=shardings.replicated)
        if self._real is None:
            real = Summary(self._batches.length)
            for images, _ in in_random_order(self._batches):
                if stop():
                    return None
                real.add(*self._features(images))
            self._real = real
            counts = {"samples (raise eval.samples)": self._num, "real images": self._batches.length}
            warn_of_few(real.kept.shape[1], counts)
        fake = Summary(self._num)
        for first in range(0, self._num, batch):
            if stop():
                return None
            ids = put_global(np.arange(first, first + batch, dtype=np.int32), shardings.replicated)
            images = to_uint8(jax.device_get(self._generate(state, ids)))
            fake.add(*self._features(images[: self._num - first]))
        return {"eval/frechet_distance": distance(self._real, fake)}

    def card(self, step: int, figures: Mapping[str, float]) -> dict[str, Any]:
        """Return a step's card."""
        data = {**self._config["data"], "split": self._config["eval"]["split"]}
        fake = {"count": self._num, "step": step, "sampling_seed": "that of evaluation in training"}
        named = {name.removeprefix("eval/"): value for name, value in figures.items()}
        return card(self._extractor, described(self._batches, data), fake | of_run(self._config), named)

    def _generated(self, state: Any, ids: jax.Array) -> jax.Array:
        images, _ = self._task.generated(state, named_key(run_key(0), "evaluation"), ids)
        return images


def of_training(
    config: Mapping[str, Any], task: Task, training: Batches, progress: Any = None
) -> SampleEvaluation | None:
    """Return the evaluation that a training run's config asks for (`eval.extractor`); None if it asks for none.

    Raises:
        UserError: the extractor or the split cannot be read, or do not fit the images.
    """
    wanted = config.get("eval", {})
    if not isinstance(task, Generates) or not wanted.get("extractor"):
        return None
    try:
        extractor = open_extractor(wanted["extractor"])
    except UserError as error:
        raise UserError(
            f"eval.extractor={wanted['extractor']}: {error}. Name it where it is now, or train without it: "
            "--config.eval.extractor=''"
        ) from None
    data = {
        **config["data"],
        "placement": "host" if config["data"]["placement"] == "device" else config["data"]["placement"],
    }
    real = experiment.make_part({**config, "data": data}, "eval.split", wanted["split"], progress)
    every = durations.to_steps(wanted["every"], epoch_images=training.length, step_images=step_images(config))
    return SampleEvaluation(task, extractor, real, wanted["samples"], every, config)


def best_step(workdir: Path) -> int:
    """Return the kept checkpoint with the smallest eval/frechet_distance in training, measured as the newest one.

    Raises:
        UserError: there is none.
    """
    lines = past_lines(workdir, sys.maxsize)
    distances = {line["step"]: line["eval/frechet_distance"] for line in lines if "eval/frechet_distance" in line}
    cards = {step: found for step in distances if (found := card_of(workdir, step))}
    other = {step for step, found in cards.items() if unlike(found, cards[max(cards)])}
    kept = (distances.keys() - other) & set(ckpt.steps_of(workdir / "checkpoints"))
    if not kept:
        raise UserError(
            f"{workdir} has no kept checkpoint that was evaluated in training{' as the newest one' if other else ''}: "
            "train with --config.eval.extractor and --config.checkpoint.keep_every, or leave out --best"
        )
    return min(sorted(kept), key=distances.__getitem__)


def card(
    extractor: Extractor, real: Mapping[str, Any], fake: Mapping[str, Any], figures: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Return a card: figures with all that they depend on. Only published Inception weights make them FID."""
    return {
        "figures": dict(figures),
        "is_fid": extractor.is_fid,
        "extractor": {name: getattr(extractor, name) for name in ("name", "sha256", "preparation")},
        "real": dict(real),
        "fake": dict(fake),
        **more,
        **code(),
    }


def of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card tells of samples of a run, with the usual options."""
    return {
        "quantisation": QUANTISATION,
        "options": {},
        **{name: config["data"][name] for name in ("image_size", "channels")},
        "config_sha256": config_digest(config),
        "training_seed": config["seed"],
    }


def described(batches: Batches, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card tells of real images."""
    keys = ("source", "name", "path", "split", "image_size", "channels", "crop", "resize_filter")
    return {key: data[key] for key in keys} | {"count": batches.length, "sha256": batches.sha256}


def config_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a config less its seed: runs that share it are one arm."""
    flat = {key: value for key, value in flatten(config).items() if key != "seed"}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()
