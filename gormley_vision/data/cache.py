"""Caches a small data set: decoded once into memory-mapped files, one per feature.

A cache is a folder named after a SHA-256 of its source's identity: `<name>.npy` for each feature, and `meta.json`. It
is written under another name and renamed at the end, so it is either complete or absent. One process at a time writes
it, with a file lock that the kernel releases however the process ends; the next process with the lock removes what a
dead one left behind.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gormley_vision.data.digest import Digest
from gormley_vision.data.features import Feature, Features, check_features, checked, from_json, to_json
from gormley_vision.data.sources import Source
from gormley_vision.errors import UserError
from gormley_vision.files import home_cache, sync_folder, user_path

# Version of the identity that a checkpoint saves for a streamed set: increase it when the decoding in `images` changes.
IDENTITY_VERSION = 1
# Version of a cache's folder: increase it when the files' layout or the decoding changes.
LAYOUT_VERSION = 2
# Most examples, and bytes, that are decoded before they are written: this limits memory.
CHUNK = 1024
CHUNK_BYTES = 2**26

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Examples:
    """A decoded data set.

    Attributes:
        features: describe each array.
        arrays: {name: [N, *shape]}, memory-mapped and read-only.
        sha256: of the arrays and the features; identifies the data set in checkpoints.
    """

    features: Features
    arrays: dict[str, np.ndarray]
    sha256: str


def load_examples(
    source: Source, cache_dir: str, progress: Progress | None = None, needs: Mapping[str, str] | None = None
) -> Examples:
    """Read a source's cache, after decoding the source into it if there is none.

    Args:
        source: the data set; its examples are not read if they are cached.
        cache_dir: folder of caches; "" means `$XDG_CACHE_HOME/gormley_vision/data`, by default under ~/.cache.
        progress: called with (examples decoded, all examples) while decoding.
        needs: see `features.check_features`, which refuses a data set before it is decoded.

    Raises:
        UserError: a feature is missing, the folder cannot be written (full, read-only, no locks), or an error of the
          source, such as an image that cannot be decoded.
    """
    root = user_path(cache_dir) if cache_dir else home_cache() / "data"
    # Features count, too: a source of a user's own may forget to change its identity.
    key = identity_sha256({**source.identity, "features": to_json(source.features)}, LAYOUT_VERSION)
    with _naming(root):
        if not _fault(root / key):
            return _open(root / key, needs or {})
    check_features(source.features, needs or {})
    with _naming(root):
        root.mkdir(parents=True, exist_ok=True)
    with _locked(root, key):
        # Another process may have written it while this one waited for the lock.
        fault = _fault(root / key)
        if fault:
            if (root / key).exists():
                _log.warning("the data cache %s is broken and will be rebuilt: %s", root / key, fault)
            _remove_abandoned(root, key)
            _write(source, root, key, progress)
        return _open(root / key, needs or {})


def identity_sha256(identity: dict[str, Any], version: int = IDENTITY_VERSION) -> str:
    """Return the SHA-256 (hex) of a source's identity and a version."""
    text = json.dumps([version, identity], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _fault(folder: Path) -> str:
    """Return what is wrong with the cache in `folder`; "" if nothing is."""
    try:
        sizes = json.loads((folder / "meta.json").read_text())["sizes"]
        found = {name: (folder / name).stat().st_size for name in sizes}
    # ValueError: broken JSON. OSError: a missing file.
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if found == sizes else f"file sizes are {found}, its meta.json says {sizes}"


def _open(folder: Path, needs: Mapping[str, str]) -> Examples:
    meta = json.loads((folder / "meta.json").read_text())
    features = from_json(meta["features"])
    check_features(features, needs)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in features}
    return Examples(features, arrays, meta["sha256"])


def _write(source: Source, root: Path, key: str, progress: Progress | None) -> None:
    """Decode the source into `root/key`. Needs the lock of `key`."""
    length, features = len(source), source.features
    temporary = root / f"{key}.tmp"
    digest = Digest(length, features)
    try:
        with ExitStack() as closing:
            with _naming(root):
                temporary.mkdir()
                files = {
                    name: closing.enter_context(_begin_array(temporary / f"{name}.npy", length, feature))
                    for name, feature in features.items()
                }
            for done, chunk in _decode(source, length, features):
                for name, array in chunk.items():
                    digest.update(name, array)
                    with _naming(root):
                        files[name].write(array.data)
                if progress is not None:
                    progress(done, length)
            with _naming(root):
                for file in files.values():
                    _sync(file)
        with _naming(root):
            meta = {
                "sha256": digest.hexdigest(),
                "features": to_json(features),
                "sizes": {f"{name}.npy": (temporary / f"{name}.npy").stat().st_size for name in features},
            }
            with (temporary / "meta.json").open("wb") as file:
                file.write(json.dumps(meta, indent=1).encode())
                _sync(file)
            sync_folder(temporary)
            if (root / key).exists():  # broken, or it would have been opened
                shutil.rmtree(root / key)
            temporary.rename(root / key)
            sync_folder(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _begin_array(path: Path, length: int, feature: Feature) -> BinaryIO:
    """Open an .npy file for `length` examples' arrays, and write its header.

    It is written, not mapped: a full disk is then an error, while a mapping would end the process with SIGBUS.
    """
    file = path.open("wb")
    descr = np.lib.format.dtype_to_descr(np.dtype(feature.dtype))
    header = {"descr": descr, "fortran_order": False, "shape": (length, *feature.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _decode(source: Source, length: int, features: Features) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield (examples decoded, {name: [n, *shape]} of the last n), decoded in threads: Pillow releases the GIL."""

    def example(index: int) -> dict[str, np.ndarray]:
        return checked(source[index], features, index)

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        size = sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in features.values())
        count = min(CHUNK, max(1, CHUNK_BYTES // size))
        for start in range(0, length, count):
            stop = min(start + count, length)
            examples = list(pool.map(example, range(start, stop)))
            yield stop, {name: np.stack([one[name] for one in examples]) for name in features}


@contextmanager
def _naming(root: Path) -> Iterator[None]:
    """Turn an OSError of the cache folder into a UserError that names it and the override."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the data cache in {root}: {error.strerror or error}. Choose another folder: "
            "--config.data.cache_dir=FOLDER"
        ) from error


@contextmanager
def _locked(root: Path, key: str) -> Iterator[None]:
    """Hold the lock of one key, after waiting for another process that decodes the same data."""
    with _naming(root):
        # The file is kept: if it were removed, two processes could lock two different files of this name.
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
    """Remove unfinished caches whose writers died: their locks are free. Needs the lock of `held_key`."""
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
