"""Text as bytes: windows of one long sequence of tokens, a folder's files concatenated."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.data.features import Example, Feature
from gormley_vision.data.folder_listing import list_files, size_and_time
from gormley_vision.data.folder_source import SPLIT_NAMES
from gormley_vision.errors import UserError
from gormley_vision.files import user_path


class TextSource:
    """Window i is tokens i * context to (i + 1) * context, so that each token but the first is predicted once.

    The last tokens, fewer than `context`, are left out. A file is one document, and a token is one byte, 0 to 255.
    """

    class_names = ()
    labels = None

    def __init__(self, root: Path, files: Sequence[str], context: int, packing: bool) -> None:
        described = [(file, *size_and_time(root / file)) for file in files]
        described = [(file, size, time) for file, size, time in described if size]
        self.identity: dict[str, Any] = {"source": "text", "files": described, "context": context, "packing": packing}
        self.features = {"tokens": Feature("tokens", (context + 1,), "uint8")}
        if packing:
            self.features |= {name: Feature("tokens", (context + 1,), "int32") for name in ("segments", "positions")}
        self._paths = [root / file for file, *_ in described]
        self._begins = np.cumsum([0, *(size for _, size, _ in described)])  # has one more entry: the end of all
        self._context, self._packing = context, packing

    def __len__(self) -> int:
        return max(0, int(self._begins[-1]) - 1) // self._context

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self._context
        stop = start + self._context + 1
        first, last = np.searchsorted(self._begins, [start, stop - 1], "right") - 1
        parts = [self._read(document, start, stop) for document in range(first, last + 1)]
        example = {"tokens": np.concatenate(parts)}
        if self._packing:
            lengths = [len(part) for part in parts]
            example["segments"] = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
            example["positions"] = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
        return example

    def _read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Read a document's part of tokens `start` to `stop - 1`. Maps the file each time: there may be a million."""
        path, begin, end = self._paths[document], self._begins[document], self._begins[document + 1]
        start, stop = max(start, begin), min(stop, end)
        try:
            tokens = np.array(np.memmap(path, np.uint8, "r")[start - begin : stop - begin])
        # ValueError: the file has become empty.
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read the text {path}: {error}") from error
        if len(tokens) != stop - start:
            raise UserError(f"the text {path} was cut short while it was read: run the same command again")
        if not tokens.all():
            raise UserError(f"{path} is not text: it has a zero byte. Save it as UTF-8, or move it away")
        return tokens


def open_text(data: Mapping[str, Any]) -> TextSource:
    """Open `data.path`: a file, which is one split, "train"; or a folder.

    In a folder, the split is its subfolder `<split>`, or its file `<split>.txt`, or, for "train", all of it: every
    visible file at any depth, sorted by name. An example is `tokens`, uint8 [context + 1]. With `data.packing` it also
    has `segments`, the number of each token's document in the window, and `positions`, which restart in each document;
    both int32 [context + 1].

    Raises:
        UserError: there is no such file, folder or split, or less text than one window.
    """
    path, split, context = data["path"], data["split"], data["context"]
    if not path:
        raise UserError("data.source='text' needs text: --config.data.path=FILE_OR_FOLDER")
    root, files = _find(user_path(path), split)
    source = TextSource(root, files, context, data["packing"])
    if not len(source):
        size = sum(size for _, size, _ in source.identity["files"])
        raise UserError(
            f"{user_path(path)} has {size} bytes of text, but a window needs data.context={context} and one more: "
            + (f"--config.data.context={size - 1}" if size > 1 else "set --config.data.path=FILE_OR_FOLDER")
        )
    return source


def _find(path: Path, split: str) -> tuple[Path, list[str]]:
    """Return a folder, and the files in it that make up the split."""
    if path.is_file():
        if split not in ("", "train"):
            raise UserError(f"{path} is one split, 'train'; it has no {split!r}: --config.data.split=train")
        return path.parent, [path.name]
    if not path.is_dir():
        raise UserError(f"no text at {path.absolute()}: set --config.data.path=FILE_OR_FOLDER")
    if split and (path / split).is_dir():
        return path / split, list_files(path / split)
    if split and (path / f"{split}.txt").is_file():
        return path, [f"{split}.txt"]
    if split not in ("", "train"):
        raise UserError(
            f"{path} has no subfolder {split!r} and no {split}.txt; without these it is one split, 'train': "
            "--config.data.split=train"
        )
    files = list_files(path)
    named = {part for file in files for part in (file.split("/")[0], file.removesuffix(".txt")) if part in SPLIT_NAMES}
    if split and named:  # else what is evaluated on would be trained on
        raise UserError(
            f"{path} has {', '.join(sorted(named))}, and no train.txt or subfolder 'train': name the text to train on "
            "so, or take all of it as one split: --config.data.split=''"
        )
    return path, files
