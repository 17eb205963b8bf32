"""Converts IDX files, the format of MNIST, Fashion-MNIST and similar sets, to npz."""

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.errors import UserError

CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
# The prefixes of file names in IDX sets.
_PREFIXES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not: uint8 of the shape in its header.

    The header is two zero bytes, the type (8: unsigned byte), the number of dimensions, and each dimension as
    a big-endian 32-bit integer.

    Raises:
        UserError: the file is of another kind, or its length differs from its header.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    # gzip raises EOFError if the file ends early, zlib.error (not an OSError) if its content is broken.
    except Exception as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise UserError(f"{path} is not an IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if len(data) != start + math.prod(shape):
        raise UserError(f"{path} holds {len(data) - start} bytes of data; its header says {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def convert_idx(name: str, idx_dir: Path, out_dir: Path) -> list[Path]:
    """Write `out_dir/train.npz` and `out_dir/test.npz`, which `data.source='npz'` reads.

    Args:
        name: a key of `CLASS_NAMES`.
        idx_dir: folder of train-images-idx3-ubyte, t10k-labels-idx1-ubyte, ..., each gzipped (.gz) or not.
        out_dir: created if it does not exist.

    Returns:
        The two files.

    Raises:
        UserError: the name is unknown, or a file is missing or broken.
    """
    if name not in CLASS_NAMES:
        raise UserError(f"--idx reads {' or '.join(CLASS_NAMES)}, not {name!r}")
    splits: dict[str, dict[str, Any]] = {
        split: {
            "images": read_idx(_find(idx_dir, f"{prefix}-images-idx3-ubyte")),
            "labels": read_idx(_find(idx_dir, f"{prefix}-labels-idx1-ubyte")),
            "class_names": np.array(CLASS_NAMES[name]),
        }
        for split, prefix in _PREFIXES.items()
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for split, arrays in splits.items():
        np.savez_compressed(out_dir / f"{split}.npz", **arrays)
    return [out_dir / f"{split}.npz" for split in splits]


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise UserError(
        f"no {name}.gz or {name} in {folder.absolute()}. Debian's package dataset-fashion-mnist has such "
        "files in /usr/share/datasets/fashion-mnist"
    )
