"""Batches: which examples a step reads, and three ways to move them to the device.

A step takes `minibatches` (k) minibatches of `batch_size` (m) examples from the endless stream of `order`:
step t reads positions t*k*m .. (t+1)*k*m - 1 as [k, m], and each process only the columns that its devices
hold. So a batch is a pure function of (seed, step), whatever the placement and the number of hosts.
"""

import os
import sys
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gormley_vision.data.cache import Progress, identity_sha256, load_examples
from gormley_vision.data.choices import check_choice
from gormley_vision.data.classes import Relabelled, match_classes, with_classes
from gormley_vision.data.features import (
    Description,
    Example,
    Features,
    check_features,
    check_labels,
    checked,
    class_label,
    class_names_of,
)
from gormley_vision.data.order import example_ids
from gormley_vision.data.sources import Source, open_source
from gormley_vision.errors import UserError

PLACEMENTS = ("device", "host", "stream")
# Steps read ahead of the consumer.
PREFETCH = 2

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Batches:
    """This process's share of an endless sequence of global batches; made by `open_batches`.

    Attributes:
        length: N, examples in the data set.
        features: describe each array of an example.
        sha256: identifies the data set in checkpoints: of the decoded examples, or, if nothing is cached
          (placement "stream"), of the source's identity.
        batch_size: m, examples in a global minibatch.
        minibatches: k, minibatches in a step.
        resident: what the device keeps between steps: {name: [N, *shape]} for placement "device", else {}.
    """

    length: int
    features: Features
    sha256: str
    batch_size: int
    minibatches: int
    resident: dict[str, np.ndarray]
    _seed: int = field(repr=False)
    _placement: str = field(repr=False)
    _columns: np.ndarray = field(repr=False)  # p of m
    _workers: int = field(repr=False)
    _source: Source = field(repr=False)
    _arrays: dict[str, np.ndarray] = field(repr=False)  # decoded examples; {} for "stream"

    @property
    def description(self) -> Description:
        """The description of the data set, for a task."""
        return Description(self.features, self.length)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by label; () if unlabelled."""
        return class_names_of(self.features)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the first feature that is an image; () if there is none. Saved in checkpoints."""
        return next((feature.shape for feature in self.features.values() if feature.kind == "image"), ())

    @property
    def identity(self) -> dict[str, Any]:
        """The source's identity, with its files: shows which file changed if `sha256` did."""
        return self._source.identity

    def classes_present(self) -> set[int] | None:
        """Return the labels of at least one example; None if that would need reading every example."""
        name = class_label(self.features)
        if not name:
            return set()
        labels = self._arrays[name] if self._arrays else self._source.labels
        return None if labels is None else set(np.unique(labels).tolist())

    def read(self, step: int) -> Batch:
        """Read this process's part, p columns, of the batch of `step` (from 0), as `fetch` needs it.

        Returns:
            "host" and "stream": {name: [k, p, *shape]}; "device": {"index": int32 [k, p]}, positions in `resident`.

        Raises:
            UserError: an example cannot be decoded ("stream").
        """
        shape = (self.minibatches, self.batch_size)
        ids = example_ids(self._seed, self.length, step * shape[0] * shape[1], shape[0] * shape[1])
        ids = ids.reshape(shape)[:, self._columns]
        return {"index": ids.astype(np.int32)} if self._placement == "device" else self._gathered(ids)

    def fetch(self, resident: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        """Return the examples of a batch that was read; may be traced by jax.

        Args:
            resident: `self.resident`, on the device.
            batch: what `read` returned, on the device.

        Returns:
            {name: [k, p, *shape]}.
        """
        if self._placement != "device":
            return batch
        import jax.numpy as jnp

        # Indices are in range by construction; "clip" is the cheapest mode.
        return {name: jnp.take(array, batch["index"], axis=0, mode="clip") for name, array in resident.items()}

    def padded(self) -> Generator[Batch, None, None]:
        """Yield every example once, in the source's own order, as this process's columns of padded batches.

        Batches are {name: [p, *shape], "mask": bool [p]}: the mask is false where the last batch is padded.
        """
        for first in range(0, self.length, self.batch_size):
            ids = np.arange(first, first + self.batch_size)[self._columns]
            yield {**self._gathered(np.minimum(ids, self.length - 1)), "mask": ids < self.length}

    def examples(self, ids: np.ndarray) -> Batch:
        """Return the examples with these numbers, {name: [len(ids), *shape]}."""
        return self._gathered(np.asarray(ids))

    def from_step(self, step: int) -> Generator[Batch, None, None]:
        """Yield read(step), read(step + 1), ... forever, reading ahead in the background.

        The iterator's `close()` stops the threads. An error in a thread is raised to the consumer unchanged, at
        the step where it happened.
        """
        if self._placement == "device":
            return self._in_turn(step)
        return self._read_ahead(step) if self._placement == "host" else self._streamed(step)

    def _gathered(self, ids: np.ndarray) -> Batch:
        """Return {name: [*ids.shape, *shape]} of these examples."""
        if self._arrays:
            return {name: array[ids] for name, array in self._arrays.items()}
        examples = [self._decoded(int(i)) for i in ids.ravel()]
        return {
            name: np.stack([one[name] for one in examples]).reshape(*ids.shape, *feature.shape)
            for name, feature in self.features.items()
        }

    def _decoded(self, index: int) -> Example:
        return checked(self._source[index], self.features, index)

    def _in_turn(self, step: int) -> Generator[Batch, None, None]:
        while True:
            yield self.read(step)
            step += 1

    def _read_ahead(self, step: int) -> Generator[Batch, None, None]:
        pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        try:
            ahead: deque[Future[Batch]] = deque(pool.submit(self.read, step + i) for i in range(PREFETCH))
            while True:
                batch = ahead.popleft().result()
                ahead.append(pool.submit(self.read, step + PREFETCH))
                yield batch
                step += 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _streamed(self, step: int) -> Generator[Batch, None, None]:
        # Importing grain takes 0.4 s in addition to jax, so it is only imported for streams.
        import grain

        local = len(self._columns)
        per_step = self.minibatches * local

        def example(number: int) -> Example:
            row, column = divmod(number, local)
            position = row * self.batch_size + int(self._columns[column])
            return self._decoded(int(example_ids(self._seed, self.length, position, 1)[0]))

        def as_minibatches(batch: Batch) -> Batch:
            return {name: array.reshape(self.minibatches, local, *array.shape[1:]) for name, array in batch.items()}

        # Numbers count this process's examples in the order of its steps; the range has no end in practice.
        dataset = grain.MapDataset.range(step * per_step, sys.maxsize).map(example).batch(per_step)
        options = grain.ReadOptions(num_threads=self._workers, prefetch_buffer_size=self._workers + PREFETCH)
        iterator = iter(dataset.map(as_minibatches).to_iter_dataset(options))
        try:
            yield from iterator
        finally:
            iterator.close()


def open_batches(
    *,
    seed: int,
    minibatches: int,
    data: Mapping[str, Any],
    columns: Sequence[int] | np.ndarray | None = None,
    class_names: tuple[str, ...] = (),
    needs: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Batches:
    """Open a data set and, for the placements "host" and "device", decode it into the cache.

    Args:
        seed: determines the order; see `order.example_ids`.
        minibatches: k, minibatches in a step.
        data: a config's data section: what `sources.open_source` reads, and
          `batch_size`: m, examples in a global minibatch;
          `placement`: "device": examples are kept on the device and a step reads indices; "host": they are gathered
          from the memory-mapped cache; "stream": decoded at each read, through Grain, without a cache;
          `workers`: threads that decode for "stream", 0 for none;
          `cache_dir`: see `cache.load_examples`.
        columns: which examples of a global minibatch this process reads, ascending; None for all.
        class_names: the classes that labels shall index, matched by name; () for the data set's own.
        needs: {name: kind} of the features that the task reads; see `features.check_features`.
        progress: see `cache.load_examples`.

    Raises:
        UserError: see `open_source`, `load_examples`, `check_features` and `match_classes`; names the override to type.
    """
    placement, workers, batch_size = data["placement"], data["workers"], data["batch_size"]
    check_choice("data.placement", placement, PLACEMENTS)
    if workers < 0:
        raise UserError(f"data.workers={workers} is negative: --config.data.workers={os.cpu_count()}")
    if minibatches < 1 or batch_size < 1:
        raise ValueError(f"{minibatches=}, {batch_size=}")
    source = open_source(data)
    arrays: dict[str, np.ndarray] = {}
    if placement == "stream":
        check_features(source.features, needs or {})
        if source.labels is not None:
            check_labels(source.labels, source.features)
        source = Relabelled(source, class_names) if class_names else source
        features, sha256 = source.features, identity_sha256(source.identity)
        length = len(source)
    else:
        cached = load_examples(source, data["cache_dir"], progress, needs)
        # Plain views: indexing a memmap returns a memmap, and costs twice as much for small batches.
        arrays = {name: np.asarray(array) for name, array in cached.arrays.items()}
        features, sha256 = cached.features, cached.sha256
        if label := class_label(features):
            check_labels(arrays[label], features)
        if class_names:
            matched = match_classes(class_names_of(features), class_names)
            arrays[label] = matched[arrays[label]]
            features = with_classes(features, class_names)
        length = len(next(iter(arrays.values())))
    return Batches(
        length=length,
        features=features,
        sha256=sha256,
        batch_size=batch_size,
        minibatches=minibatches,
        resident=arrays if placement == "device" else {},
        _seed=seed,
        _placement=placement,
        _columns=np.arange(batch_size) if columns is None else np.asarray(columns),
        _workers=workers,
        _source=source,
        _arrays=arrays,
    )
