"""Batches: which examples a step reads, and three ways to bring them to the device.

A step takes `minibatches` (k) minibatches of `batch_size` (m) examples from the endless stream of `order`:
step t reads positions t*k*m .. (t+1)*k*m - 1 as [k, m], and a process its columns of them, those that its
devices hold. So a batch is a pure function of (seed, step), whatever the placement and the number of hosts.
"""

import os
import sys
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gormley_vision.data.cache import Progress, identity_sha256, load_examples
from gormley_vision.data.choices import check_choice
from gormley_vision.data.classes import Relabelled, match_classes
from gormley_vision.data.decoding import MAX_MEGAPIXELS
from gormley_vision.data.images import CROP_FRACTION
from gormley_vision.data.order import example_ids
from gormley_vision.data.sources import Source, open_source
from gormley_vision.errors import UserError

PLACEMENTS = ("device", "host", "stream")
# Steps read ahead of the consumer.
PREFETCH = 2

Piece = dict[str, np.ndarray]


@dataclass(frozen=True)
class Batches:
    """This process's share of an endless sequence of global batches; made by `open_batches`.

    Attributes:
      length: N, examples in the data set.
      class_names: names of the classes, label by label; () when unlabelled.
      image_shape: (H, W, C).
      sha256: names the data set in checkpoints: of the decoded examples, or, where nothing is cached
        (placement "stream"), of the source's identity.
      batch_size: m, examples in a global minibatch.
      minibatches: k, minibatches a step.
      resident: what the device keeps between steps: {"image": uint8 [N, H, W, C], "label": int32 [N]} for
        placement "device", else {}.
    """

    length: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
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
    def identity(self) -> dict[str, Any]:
        """The source's, file by file: tells which file changed where `sha256` tells that one did."""
        return self._source.identity

    def classes_present(self) -> set[int] | None:
        """Labels that at least one example has; None where only reading every example would tell."""
        labels = self._arrays["label"] if self._arrays else self._source.labels
        return None if labels is None else set(np.unique(labels).tolist())

    def read(self, step: int) -> Piece:
        """This process's piece of the batch of `step` (from 0).

        Returns:
          "host" and "stream": {"image": uint8 [k, p, H, W, C], "label": int32 [k, p]}, p being its columns;
          "device": {"index": int32 [k, p]}, positions in `resident`.

        Raises:
          UserError: an image that cannot be decoded ("stream").
        """
        shape = (self.minibatches, self.batch_size)
        ids = example_ids(self._seed, self.length, step * shape[0] * shape[1], shape[0] * shape[1])
        ids = ids.reshape(shape)[:, self._columns]
        if self._placement == "device":
            return {"index": ids.astype(np.int32)}
        if self._placement == "host":
            return {name: array[ids] for name, array in self._arrays.items()}
        images, labels = zip(*(self._source[int(i)] for i in ids.ravel()), strict=True)
        return {
            "image": np.stack(images).reshape(*ids.shape, *self.image_shape),
            "label": np.array(labels, np.int32).reshape(ids.shape),
        }

    def fetch(self, resident: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
        """Makes the batch of a piece; may be traced by jax.

        Args:
          resident: `self.resident`, on the device.
          piece: what `read` returned, on the device.

        Returns:
          {"image": uint8 [k, m, H, W, C], "label": int32 [k, m]}, m being the piece's own columns.
        """
        if self._placement != "device":
            return piece
        import jax.numpy as jnp

        # Indices are in range by construction; "clip" is the mode that costs nothing to make safe.
        return {name: jnp.take(array, piece["index"], axis=0, mode="clip") for name, array in resident.items()}

    def whole(self) -> Generator[Piece, None, None]:
        """Yields every example once, in the source's own order, as this process's columns of padded batches.

        {"image": uint8 [p, H, W, C], "label": int32 [p], "mask": bool [p]}: false where the last is padded.
        """
        for first in range(0, self.length, self.batch_size):
            ids = np.arange(first, first + self.batch_size)[self._columns]
            mask, ids = ids < self.length, np.minimum(ids, self.length - 1)
            if self._arrays:
                piece = {name: array[ids] for name, array in self._arrays.items()}
            else:
                images, labels = zip(*(self._source[int(i)] for i in ids), strict=True)
                piece = {"image": np.stack(images), "label": np.array(labels, np.int32)}
            yield {**piece, "mask": mask}

    def pieces(self, start_step: int) -> Generator[Piece, None, None]:
        """Yields read(start_step), read(start_step + 1), ... for ever, read ahead in the background.

        The iterator's `close()` stops the threads. What goes wrong in a thread is raised to the consumer as
        it is, at the step that it befell.
        """
        if self._placement == "device":
            return self._in_turn(start_step)
        return self._read_ahead(start_step) if self._placement == "host" else self._streamed(start_step)

    def _in_turn(self, step: int) -> Generator[Piece, None, None]:
        while True:
            yield self.read(step)
            step += 1

    def _read_ahead(self, step: int) -> Generator[Piece, None, None]:
        pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        try:
            ahead: deque[Future[Piece]] = deque(pool.submit(self.read, step + i) for i in range(PREFETCH))
            while True:
                piece = ahead.popleft().result()
                ahead.append(pool.submit(self.read, step + PREFETCH))
                yield piece
                step += 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _streamed(self, step: int) -> Generator[Piece, None, None]:
        # Importing grain takes 0.4 s beyond jax, so only those who stream pay for it.
        import grain

        local = len(self._columns)
        per_step = self.minibatches * local

        def example(number: int) -> dict[str, Any]:
            row, column = divmod(number, local)
            position = row * self.batch_size + int(self._columns[column])
            image, label = self._source[int(example_ids(self._seed, self.length, position, 1)[0])]
            return {"image": image, "label": np.int32(label)}

        def as_minibatches(batch: Piece) -> Piece:
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
    columns: Sequence[int] | np.ndarray | None = None,
    source: str,
    name: str,
    path: str,
    split: str,
    image_size: int,
    channels: int,
    crop: str,
    resize_filter: str,
    batch_size: int,
    placement: str,
    workers: int,
    cache_dir: str,
    class_names: tuple[str, ...] = (),
    crop_fraction: float = CROP_FRACTION,
    max_megapixels: int = MAX_MEGAPIXELS,
    progress: Progress | None = None,
) -> Batches:
    """Opens a data set and, for the placements "host" and "device", decodes it into the cache.

    Args:
      seed: of the order; see `order.example_ids`.
      minibatches: k, minibatches a step takes.
      columns: which examples of a global minibatch this process reads, ascending; all where None.
      source, name, path, split, image_size, channels, crop, resize_filter, crop_fraction, max_megapixels:
        see `sources.open_source`.
      batch_size: m, examples in a global minibatch.
      placement: "device": examples live on the device and a piece is their indices; "host": a piece is
        gathered from the memory-mapped cache; "stream": decoded at each read, through Grain, without a cache.
      workers: threads that decode for "stream", 0 for none.
      cache_dir: see `cache.load_examples`.
      class_names: classes whose labels are wanted, matched by name; () for the data set's own.
      progress: see `cache.load_examples`.

    Raises:
      UserError: see `open_source`, `load_examples` and `match_classes`; with the override to type.
    """
    check_choice("data.placement", placement, PLACEMENTS)
    if workers < 0:
        raise UserError(f"data.workers={workers} is negative: --config.data.workers={os.cpu_count()}")
    if minibatches < 1 or batch_size < 1:
        raise ValueError(f"{minibatches=}, {batch_size=}")
    opened = open_source(
        source=source,
        name=name,
        path=path,
        split=split,
        image_size=image_size,
        channels=channels,
        crop=crop,
        resize_filter=resize_filter,
        crop_fraction=crop_fraction,
        max_megapixels=max_megapixels,
    )
    arrays: dict[str, np.ndarray] = {}
    if placement == "stream":
        opened = Relabelled(opened, class_names) if class_names else opened
        length, class_names = len(opened), opened.class_names
        sha256 = identity_sha256(opened.identity)
    else:
        cached = load_examples(opened, cache_dir, progress)
        # A plain view: indexing a memmap makes a memmap again, and costs twice as much for small batches.
        labels = match_classes(cached.class_names, class_names)[cached.labels] if class_names else cached.labels
        arrays = {"image": np.asarray(cached.images), "label": labels}
        length, class_names, sha256 = len(labels), class_names or cached.class_names, cached.sha256
    return Batches(
        length=length,
        class_names=class_names,
        image_shape=(image_size, image_size, channels),
        sha256=sha256,
        batch_size=batch_size,
        minibatches=minibatches,
        resident=arrays if placement == "device" else {},
        _seed=seed,
        _placement=placement,
        _columns=np.arange(batch_size) if columns is None else np.asarray(columns),
        _workers=workers,
        _source=opened,
        _arrays=arrays,
    )
