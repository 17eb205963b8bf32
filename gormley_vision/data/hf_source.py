"""Data sets of Hugging Face that lie on disk, as Parquet (what the hub keeps) or Arrow (`save_to_disk`), by pyarrow."""

import bisect
import importlib.util
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gormley_vision.data.decoding import decode_bytes, decode_file
from gormley_vision.data.features import Example, label_feature
from gormley_vision.data.folder_listing import list_files, size_and_time
from gormley_vision.data.folder_source import SPLIT_NAMES
from gormley_vision.data.images import Conversion
from gormley_vision.errors import UserError, listed
from gormley_vision.files import user_path

SUFFIXES = (".parquet", ".arrow")
# Row groups of Parquet that are kept decompressed: enough for threads that read near each other.
ROW_GROUPS = 4

_log = logging.getLogger(__name__)

# pyarrow takes 0.2 s to import and is an optional dependency, so only those who read such a set pay for it.


class HfSource:
    """Images out of the files of one split, each with its label where the set has classes.

    Arrow is memory-mapped. Parquet is decompressed a row group at a time, so that reading it in a shuffled order, as
    placement "stream" does, is slow.
    """

    def __init__(self, root: Path, files: list[str], conversion: Conversion) -> None:
        self._root, self._conversion = root, conversion
        self._row_group = lru_cache(maxsize=ROW_GROUPS)(_read_row_group)
        self._lock = threading.Lock()
        self._image, self._label, self.class_names = _find_columns(root / files[0])
        for file in files[1:]:
            if _find_columns(root / file) != (self._image, self._label, self.class_names):
                raise UserError(f"{root / file} has other columns or classes than {root / files[0]}: move either away")
        self._parts: list[tuple[Path, Callable[[], Any]]] = []  # a file, and what reads a table of it
        sizes = []
        for file in files:
            for size, read in self._tables(root / file):
                self._parts.append((root / file, read))
                sizes.append(size)
        self._begins = np.cumsum([0, *sizes]).tolist()  # one more: where all end
        self.features = {"image": conversion.feature, **label_feature(self.class_names)}
        self.labels = None  # each lies beside its image
        self.identity: dict[str, Any] = {
            "source": "hf",
            "classes": self.class_names,
            "files": [(file, *size_and_time(root / file)) for file in files],
            "decode": conversion.identity,
        }

    def _tables(self, path: Path) -> list[tuple[int, Callable[[], Any]]]:
        """How many rows each table of a file has, and what reads it."""
        if path.suffix == ".arrow":
            table = _read_arrow(path)
            return [(table.num_rows, lambda: table)]
        with _parquet(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        return [(size, partial(self._row_group, path, group)) for group, size in enumerate(sizes)]

    def __len__(self) -> int:
        return self._begins[-1]

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self._begins, index) - 1
        path, read = self._parts[part]
        name, row = f"{path} (example {index})", index - self._begins[part]
        with self._lock:  # so that no two threads decompress the same row group
            table = read()
        example = {"image": self._conversion(self._decode(table.column(self._image)[row].as_py(), name))}
        if not self._label:
            return example
        label = table.column(self._label)[row].as_py()
        if label is None or not 0 <= label < len(self.class_names):
            raise UserError(f"{name} has the label {label}, and the set's classes are 0 to {len(self.class_names) - 1}")
        return example | {"label": np.array(label, np.int32)}

    def _decode(self, image: dict[str, Any] | None, name: str) -> Image.Image:
        """A picture that lies in its row, or in a file that the row names."""
        image, limit = image or {}, self._conversion.max_megapixels
        if image.get("bytes") is not None:
            return decode_bytes(image["bytes"], name=name, max_megapixels=limit)
        if not image.get("path"):
            raise UserError(f"{name} has no image: leave such rows out")
        return decode_file(self._root / image["path"], limit)


def open_hf(data: Mapping[str, Any]) -> HfSource:
    """Open the images of a split at `data.path`: see `files_of`.

    The image is the column of type Image (the one named "image" where there are several), the label likewise the
    ClassLabel, found by type in the schema's metadata.

    Raises:
      UserError: as `files_of`; or there is no image among the columns.
    """
    if not data["path"]:
        raise UserError("data.source='hf' needs a folder of .parquet or .arrow files: --config.data.path=FOLDER")
    return HfSource(*files_of(user_path(data["path"]), data["split"]), Conversion.of(data))


def files_of(path: Path, split: str) -> tuple[Path, list[str]]:
    """Return a folder, and in it the Parquet or Arrow files of a split ("" for all) at `path`, a folder or such a file.

    A file is of the split whose name its path has as a word, as `data/test-00000-of-00001.parquet` and
    `test/data-00000-of-00001.arrow` have; where no path has any split's name, all are "train".

    Raises:
      UserError: pyarrow is not installed; there are no such files, or none of this split.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError('Parquet and Arrow are read with pyarrow: pip install -e ".[hf]"')
    if path.is_file() and path.suffix in SUFFIXES:
        root, files = path.parent, [path.name]
    elif path.is_dir():
        root, files = path, [file for file in list_files(path) if file.endswith(SUFFIXES)]
    else:
        raise UserError(f"no folder or .parquet file {path.absolute()}: set --config.data.path=FOLDER")
    # What `datasets` computes itself, it keeps beside what it was given.
    files = [file for file in files if not file.rpartition("/")[2].startswith("cache-")]
    if not files:
        raise UserError(f"no .parquet or .arrow files in {path} or below it: set --config.data.path=FOLDER")
    return root, _of_split(path, files, split) if split else files


def text_rows(path: Path, columns: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield these columns of each row of a Parquet or Arrow file as text; a ClassLabel by its class's name.

    Raises:
      UserError: a column is missing, or a row has no value or no such class.
    """
    if path.suffix == ".arrow":
        table = _read_arrow(path)
    else:
        with _parquet(path) as file:
            table = file.read()
    if missing := [column for column in columns if column not in table.schema.names]:
        raise UserError(
            f"{path} has no column {listed(missing)}: its columns are {listed(table.schema.names)}; "
            "--config.data.text_column=NAME --config.data.label_column=NAME"
        )
    names = [_noted(table.schema).get(column, {}).get("names") for column in columns]
    for number, row in enumerate(zip(*(table.column(column).to_pylist() for column in columns), strict=True)):
        for column, value, classes in zip(columns, row, names, strict=True):
            if value is None or (classes and not 0 <= value < len(classes)):
                raise UserError(f"{path} (example {number}) has {value} as {column!r}: leave such rows out")
        yield tuple(classes[value] if classes else str(value) for value, classes in zip(row, names, strict=True))


def _of_split(path: Path, files: list[str], split: str) -> list[str]:
    word = re.compile(rf"(?<![0-9A-Za-z]){re.escape(split)}(?![0-9A-Za-z])")
    if split and (chosen := [file for file in files if word.search(file)]):
        return chosen
    named = sorted({word for file in files for word in re.split("[^0-9A-Za-z]+", file) if word in SPLIT_NAMES})
    if named or split not in ("", "train"):
        names = named or ["train"]
        raise UserError(f"{path} has no split {split!r}; it has {listed(names)}: --config.data.split={names[0]}")
    return files


def _find_columns(path: Path) -> tuple[str, str, tuple[str, ...]]:
    """Names of the image's column and of the label's ("" where the set has none), and of the classes."""
    if path.suffix == ".arrow":
        schema = _read_arrow(path).schema
    else:
        with _parquet(path) as file:
            schema = file.schema_arrow
    noted = _noted(schema)
    kinds = {name: feature.get("_type") for name, feature in noted.items()}
    images = [name for name in schema.names if kinds.get(name, _kind_by_type(schema.field(name).type)) == "Image"]
    labels = [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    if not images:
        raise UserError(f"{path} has no column of images; its columns: {listed(schema.names)}")
    image, label = _single(path, "image", images), _single(path, "label", labels or [""])
    if others := [name for name in schema.names if name not in (image, label)]:
        _log.warning(
            "%s: not read: %s (what is read: %s)", path.parent, listed(others), ", ".join(filter(None, (image, label)))
        )
    return image, label, tuple(noted[label]["names"]) if label else ()


def _noted(schema: Any) -> dict[str, dict[str, Any]]:
    """Return what `datasets` noted of each column: its type, and a ClassLabel's names."""
    noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {name: noted[name] for name in schema.names if isinstance(noted.get(name), dict)}


def _kind_by_type(kind: Any) -> str:
    """Of a column without metadata: pictures are structs of their bytes and their path."""
    import pyarrow as pa

    return "Image" if pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"} else ""


def _single(path: Path, usual: str, names: list[str]) -> str:
    if len(names) > 1 and usual not in names:
        raise UserError(f"{path} has several columns of {usual}s and none is named {usual!r}: {', '.join(names)}")
    return usual if usual in names else names[0]


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path} as Parquet: {error}") from error


def _read_row_group(path: Path, group: int) -> Any:
    import pyarrow as pa

    with _parquet(path) as file:
        try:
            return file.read_row_group(group)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read {path}, row group {group}: {error}") from error


def _read_arrow(path: Path) -> Any:
    """The table of an Arrow file, memory-mapped; a stream, as `datasets` writes it, or Arrow's own file format."""
    import pyarrow as pa

    try:
        try:
            return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path} as Arrow: {error}") from error
