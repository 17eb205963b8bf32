"""A small data set decoded once into a memory-mapped uint8 file.

A cache is a folder named by the SHA-256 of its source's identity: `images.npy`, `labels.npy`, `meta.json`.
It is written under another name and renamed when it is complete, so that it is whole or absent. One process
at a time writes it, under a file lock, which the kernel lets go when the process dies, killed or not; what a
dead process left behind is removed by the next that holds the lock.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gormley_vision.data.sources import Source
from gormley_vision.errors import UserError
from gormley_vision.files import home_cache, sync_folder, user_path

# Part of every key: raise it when the files' layout or the decoding in `images` changes.
FORMAT_VERSION = 1
# Examples decoded before they are written; bounds the memory, 12 MB of 64x64 RGB.
CHUNK = 1024

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Examples:
    """A decoded data set.

    Attributes:
      images: uint8 [N, H, W, C], memory-mapped and read-only.
      labels: int32 [N]; -1 when unlabelled.
      class_names: names, label by label; () when unlabelled.
      sha256: of the images, labels and class names; names the data set in checkpoints.
    """

    images: np.memmap
    labels: np.ndarray
    class_names: tuple[str, ...]
    sha256: str


def load_examples(source: Source, cache_dir: str, progress: Progress | None = None) -> Examples:
    """Reads a source's cache, after decoding the source into it where there is none.

    Args:
      source: what to decode; a cached source is not read.
      cache_dir: folder of caches; "" means `$XDG_CACHE_HOME/gormley_vision/data`, by default under ~/.cache.
      progress: called with (examples decoded, all examples) while decoding.

    Raises:
      UserError: the folder cannot be written (full, read-only, no locks), or the source's own errors, such as
        an image that cannot be decoded.
    """
    root = user_path(cache_dir) if cache_dir else home_cache() / "data"
    key = identity_sha256(source.identity)
    with _naming(root):
        if not _fault(root / key):
            return _open(root / key)
        root.mkdir(parents=True, exist_ok=True)
    with _locked(root, key):
        # Another process may have written it while this one waited for the lock.
        fault = _fault(root / key)
        if fault:
            if (root / key).exists():
                _log.warning("the data cache %s is broken and will be rebuilt: %s", root / key, fault)
            _remove_abandoned(root, key)
            _write(source, root, key, progress)
        return _open(root / key)


def identity_sha256(identity: dict[str, Any]) -> str:
    """SHA-256 (hex) of a source's identity and of this format's version."""
    text = json.dumps([FORMAT_VERSION, identity], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _fault(folder: Path) -> str:
    """What is wrong with the cache in `folder`, "" when nothing is."""
    try:
        sizes = json.loads((folder / "meta.json").read_text())["sizes"]
        found = {name: (folder / name).stat().st_size for name in sizes}
    # ValueError: broken JSON. OSError: a missing file.
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if found == sizes else f"file sizes are {found}, its meta.json says {sizes}"


def _open(folder: Path) -> Examples:
    meta = json.loads((folder / "meta.json").read_text())
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    return Examples(images, labels, tuple(meta["class_names"]), meta["sha256"])


def _write(source: Source, root: Path, key: str, progress: Progress | None) -> None:
    """Decodes the source into `root/key`. Needs the lock of `key`."""
    length = len(source)
    height, width, channels = source[0][0].shape
    temporary = root / f"{key}.tmp"
    labels = np.zeros(length, np.int32)
    digest = hashlib.sha256(json.dumps([length, height, width, channels, source.class_names]).encode())
    try:
        with _naming(root):
            temporary.mkdir()
            # Written, not mapped: a full disk is then an error, where a mapping would die of SIGBUS.
            file = (temporary / "images.npy").open("wb")
        with file:
            with _naming(root):
                header = {
                    "descr": "|u1",
                    "fortran_order": False,
                    "shape": (length, height, width, channels),
                }
                np.lib.format.write_array_header_1_0(file, header)
            for start, images, chunk_labels in _decode(source, length):
                digest.update(images.data)
                labels[start : start + len(images)] = chunk_labels
                with _naming(root):
                    file.write(images.data)
                if progress is not None:
                    progress(start + len(images), length)
            digest.update(labels.astype("<i4").data)
            with _naming(root):
                _sync(file)
        with _naming(root):
            with (temporary / "labels.npy").open("wb") as file:
                np.save(file, labels)
                _sync(file)
            meta = {
                "sha256": digest.hexdigest(),
                "class_names": source.class_names,
                "sizes": {name: (temporary / name).stat().st_size for name in ("images.npy", "labels.npy")},
            }
            with (temporary / "meta.json").open("wb") as file:
                file.write(json.dumps(meta, indent=1).encode())
                _sync(file)
            sync_folder(temporary)
            if (root / key).exists():  # broken, or `_open` would have returned it
                shutil.rmtree(root / key)
            temporary.rename(root / key)
            sync_folder(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _decode(source: Source, length: int) -> Iterator[tuple[int, np.ndarray, list[int]]]:
    """Yields (first index, uint8 [n, H, W, C], n labels), decoded in threads: Pillow lets the GIL go."""
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        for start in range(0, length, CHUNK):
            images, labels = zip(*pool.map(source.__getitem__, range(start, min(start + CHUNK, length))), strict=True)
            yield start, np.stack(images), list(labels)


@contextmanager
def _naming(root: Path) -> Iterator[None]:
    """Turns an OSError of the cache folder into a UserError that names it and the override."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the data cache in {root}: {error.strerror or error}. Choose another folder: "
            "--config.data.cache_dir=FOLDER"
        ) from error


@contextmanager
def _locked(root: Path, key: str) -> Iterator[None]:
    """Holds the lock of one key, waiting for another process that decodes the same data."""
    with _naming(root):
        # The file stays: were it removed, two processes could hold locks on two files of this name.
        file = (root / f"{key}.lock").open("wb")
    with file:
        with _naming(root):
            if not _try_lock(file):
                _log.warning("waiting for another process that writes the data cache %s", root / key)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_abandoned(root: Path, held_key: str) -> None:
    """Removes half-written caches whose writers died: their locks are free. Needs the lock of `held_key`."""
    for temporary in root.glob("*.tmp"):
        if temporary.stem == held_key:
            shutil.rmtree(temporary, ignore_errors=True)
            continue
        with (root / f"{temporary.stem}.lock").open("wb") as file:
            if _try_lock(file):
                shutil.rmtree(temporary, ignore_errors=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
