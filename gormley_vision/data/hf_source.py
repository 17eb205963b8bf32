"""Data sets of Hugging Face that lie on disk, as Parquet or Arrow files; nothing asks the network.

pyarrow reads them, and memory-maps Arrow files. Any row of a Parquet file needs all of its row group, so that Parquet
suits the placements "device" and "host", which read it once and in order.
"""

import importlib.util
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.data.decoding import decode_bytes
from gormley_vision.data.features import Example, label_feature
from gormley_vision.data.folder_listing import size_and_time
from gormley_vision.data.images import Conversion
from gormley_vision.errors import UserError
from gormley_vision.files import user_path

SUFFIXES = (".parquet", ".arrow")
SPLITS = ("train", "test", "validation", "valid", "val", "dev")  # as files begin, by the hub's conventions
KEPT = 4  # row groups at a time, for threads that read near each other

_log = logging.getLogger(__name__)


class HuggingFaceSource:
    """Rows of files in the order of their names: an image each, and its class where there is one."""

    def __init__(self, root: Path, files: Sequence[Path], conversion: Conversion) -> None:
        self._files = [_File(path) for path in files]
        self._ends = np.cumsum([file.rows for file in self._files])
        self._image, self._label, self.class_names = _columns(self._files[0], root)
        self.features = {"image": conversion.feature, **label_feature(self.class_names)}
        self.labels = np.concatenate([file.column(self._label) for file in self._files]) if self._label else None
        if self.labels is not None and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise UserError(
                f"{root}: the labels are {self.labels.min()} to {self.labels.max()}, and there are "
                f"{len(self.class_names)} classes; a split without labels has -1: take another --config.data.split"
            )
        self._conversion = conversion
        self.identity: dict[str, Any] = {
            "source": "hf",
            "files": [(str(path.relative_to(root)), *size_and_time(path)) for path in files],
            "columns": [self._image, self._label],
            "classes": self.class_names,
            "decode": conversion.identity,
        }

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, "right"))
        file = self._files[number]
        row = index - int(self._ends[number]) + file.rows
        value = file.value(self._image, row)
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if not encoded:
            raise UserError(
                f"{file.path} row {row}: no bytes in the column {self._image!r}; embed the images in the file"
            )
        name = f"{file.path} row {row}"
        image = self._conversion(decode_bytes(encoded, name=name, max_megapixels=self._conversion.max_megapixels))
        example = {"image": image}
        return example if self.labels is None else example | {"label": self.labels[index].astype(np.int32)}


class _File:
    """One Parquet or Arrow file, opened; rows are read from several threads."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self._lock, self._groups = threading.Lock(), OrderedDict[int, Any]()
        try:
            if path.suffix == ".parquet":
                self._parquet = pq.ParquetFile(path, memory_map=True)
                self.schema, self.rows = self._parquet.schema_arrow, self._parquet.metadata.num_rows
                counts = [self._parquet.metadata.row_group(i).num_rows for i in range(self._parquet.num_row_groups)]
                self._group_ends = np.cumsum(counts)
            else:
                self._parquet = None
                mapped = pa.memory_map(str(path))
                try:
                    self._table = pa.ipc.open_stream(mapped).read_all()
                except pa.ArrowInvalid:  # the file's format, which has an index at its end
                    self._table = pa.ipc.open_file(mapped).read_all()
                self.schema, self.rows = self._table.schema, self._table.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error

    def column(self, name: str) -> np.ndarray:
        """All of one column of numbers."""
        table = self._table if self._parquet is None else self._parquet.read(columns=[name])
        values = table[name].combine_chunks()
        if values.null_count:
            raise UserError(f"{self.path}: the column {name!r} has {values.null_count} rows without a value")
        return values.to_numpy(zero_copy_only=False)

    def value(self, name: str, row: int) -> Any:
        """One cell."""
        if self._parquet is None:
            return self._table[name][row].as_py()
        group = int(np.searchsorted(self._group_ends, row, "right"))
        with self._lock:
            if group not in self._groups:
                self._groups[group] = self._parquet.read_row_group(group, columns=[name])
                if len(self._groups) > KEPT:
                    self._groups.popitem(last=False)
            table = self._groups[group]
        return table[name][row - int(self._group_ends[group]) + table.num_rows].as_py()


def open_hf(data: Mapping[str, Any]) -> HuggingFaceSource:
    """Open the .parquet or .arrow files of `data.path`, a file or a folder as the hub or `save_to_disk` lays it out.

    A split is a subfolder `<split>`, or the files that begin with its name; without any, all files are "train".

    Raises:
      UserError: pyarrow is missing, no such files or split, or no column of images; says what to type.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError("data.source='hf' reads its files by pyarrow: pip install -e \".[hf]\"")
    if not data["path"]:
        raise UserError("data.source='hf' needs files: --config.data.path=FILE_OR_FOLDER")
    root = user_path(data["path"])
    files = _find(root, data["split"])
    return HuggingFaceSource(root.parent if root.is_file() else root, files, Conversion.of(data))


def _find(root: Path, split: str) -> list[Path]:
    if root.is_file():
        if split not in ("", "train"):
            raise UserError(f"{root} is one split, 'train'; it has no {split!r}: --config.data.split=train")
        return [root]
    if not root.is_dir():
        raise UserError(f"no file or folder {root.absolute()}: set --config.data.path=FILE_OR_FOLDER")
    files = sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"no .parquet or .arrow file in {root} or below it: set --config.data.path=FILE_OR_FOLDER")
    of_split = {path: _split_of(path.relative_to(root)) for path in files}
    chosen = [path for path in files if of_split[path] == split]
    if chosen or (split in ("", "train") and not any(of_split.values())):
        return chosen or files
    known = sorted(set(filter(None, of_split.values()))) or ["train"]
    raise UserError(f"{root} has no split {split!r}; it has {', '.join(known)}: --config.data.split={known[-1]}")


def _split_of(path: Path) -> str:
    """'train' of train/x.parquet, data/train-00000-of-00002.parquet and train.arrow; '' of what names none."""
    names = [*path.parts[:-1], path.stem]
    return next((split for name in names for split in SPLITS if name == split or name.startswith(f"{split}-")), "")


def _columns(file: _File, root: Path) -> tuple[str, str, tuple[str, ...]]:
    """The column of images, that of labels ('' for none), and the classes' names."""
    import pyarrow as pa

    stored = (file.schema.metadata or {}).get(b"huggingface")
    described = json.loads(stored)["info"]["features"] if stored else {}
    kinds = {name: kind.get("_type") for name, kind in described.items() if isinstance(kind, dict)}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    if not images:  # written by another program, without the hub's description
        structs = [field for field in file.schema if pa.types.is_struct(field.type)]
        images = [field.name for field in structs if field.type.get_field_index("bytes") >= 0]
    if not images:
        raise UserError(f"{root} has no column of images; its columns: {', '.join(file.schema.names)}")
    image = "image" if "image" in images else images[0]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    label = "label" if "label" in labels else next(iter(labels), "")
    names = tuple(described[label]["names"]) if label else ()
    if others := [name for name in file.schema.names if name not in (image, label)]:
        _log.warning("%s: not read: %s (read: %s)", root, ", ".join(others), ", ".join(filter(None, (image, label))))
    return image, label, names
