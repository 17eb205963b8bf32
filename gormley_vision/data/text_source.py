"""Text as windows of one long sequence of tokens, documents one after another."""

import bisect
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gormley_vision.data import tokenizers
from gormley_vision.data.documents import Document, find_documents, hold_out, python_topics
from gormley_vision.data.features import Example, Feature
from gormley_vision.data.tokenizers import Tokenizer
from gormley_vision.errors import UserError
from gormley_vision.files import user_path


class TextSource:
    """Window i is tokens i * context to (i + 1) * context, so that each token but the first is predicted once.

    An example is `tokens` [context + 1], `valid` bool [context + 1], false for what pads the last window, and `bytes`
    int32 [], how many bytes of UTF-8 the predicted tokens stand for: all but the first. With `packing` it also has
    `segments`, the number of each token's document in the window, and `positions`, which restart in each document; both
    int32 [context + 1]. A document's first token is then not predicted.

    Bytes are read from their files when needed; with any other tokenizer all tokens are kept in memory.
    """

    class_names = ()
    labels = None

    def __init__(self, documents: Sequence[Document], tokenizer: Tokenizer, context: int, packing: bool) -> None:
        files = [[*document.identity, document.start, document.stop] for document in documents]
        # The tokenizer itself is in the feature, which counts, too.
        self.identity: dict[str, Any] = {"source": "text", "files": files, "context": context, "packing": packing}
        self.features = window_features(context, packing, tokenizer.size, tokenizer.saved())
        self.documents, self._tokenizer = documents, tokenizer
        self._context, self._packing, self._lock = context, packing, threading.Lock()

    @cached_property
    def _encoded(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self._tokenizer.encode(document.text()) for document in self.documents]

    @cached_property
    def _ends(self) -> np.ndarray:
        """Where each document ends, in tokens."""
        by_bytes = isinstance(self._tokenizer, tokenizers.Bytes)
        sizes = [d.size for d in self.documents] if by_bytes else [len(tokens) for tokens, _ in self._encoded]
        return np.cumsum(sizes, dtype=np.int64)

    @property
    def length_in_tokens(self) -> int:
        """The number of tokens of all documents."""
        with self._lock:
            return int(self._ends[-1]) if len(self._ends) else 0

    def __len__(self) -> int:
        return -(-max(0, self.length_in_tokens - 1) // self._context)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, length = index * self._context, self._context + 1
        stop = min(start + length, self.length_in_tokens)
        first, last = (bisect.bisect_right(self._ends, at) for at in (start, stop - 1))
        parts = [self._read(number, start, stop) for number in range(first, last + 1)]
        tokens, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
        padding, lengths = length - len(tokens), [len(part) for part, _ in parts]
        segments = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
        predicted = segments[1:] == segments[:-1] if self._packing else slice(None)
        example: Example = {
            "tokens": np.pad(tokens, (0, padding)),
            "valid": np.arange(length) < len(tokens),
            "bytes": np.asarray(sizes[1:][predicted].sum(), np.int32),
        }
        if self._packing:
            positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
            # Padding is a document of its own.
            example["segments"] = np.pad(segments, (0, padding), constant_values=len(parts))
            example["positions"] = np.concatenate([positions, np.arange(padding, dtype=np.int32)])
        return example

    def _read(self, number: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a document's part of tokens `start` to `stop - 1`, and their sizes in bytes."""
        end = int(self._ends[number])
        begin = int(self._ends[number - 1]) if number else 0
        start, stop = max(start, begin) - begin, min(stop, end) - begin
        if isinstance(self._tokenizer, tokenizers.Bytes):
            tokens = self.documents[number].content(start, stop)
            return tokens, np.ones(len(tokens), np.int32)
        tokens, sizes = self._encoded[number]
        return tokens[start:stop], sizes[start:stop]


def window_features(context: int, packing: bool, vocabulary: int, saved: str = "") -> dict[str, Feature]:
    """Return the features of a window of text; `saved` is the tokenizer, as `Tokenizer.saved` returns it."""
    shape, dtype = (context + 1,), tokenizers.dtype_of(vocabulary)
    features = {
        "tokens": Feature("tokens", shape, dtype, mask="valid", tokenizer=saved, vocabulary=vocabulary),
        "valid": Feature("mask", shape, "bool"),
        "bytes": Feature("vector", (), "int32"),
    }
    if packing:
        features |= {name: Feature("tokens", shape, "int32") for name in ("segments", "positions")}
    return features


def open_text(data: Mapping[str, Any]) -> TextSource:
    """Open the text at `data.path`: see `documents.find_documents` for files and splits, and TextSource for examples.

    Raises:
        UserError: there is no such file, folder or split, or less text than one window.
    """
    if not data["path"]:
        raise UserError("data.source='text' needs text: --config.data.path=FILE_OR_FOLDER")
    path = user_path(data["path"])
    return _opened(data, str(path), lambda split: find_documents(path, split, data["held_out"]))


def open_python_topics(data: Mapping[str, Any]) -> TextSource:
    """Open the documentation that comes with Python itself, for language models without a download.

    Raises:
        UserError: there is no such split.
    """
    name = "Python's documentation"
    return _opened(data, name, lambda split: hold_out(python_topics(), split, data["held_out"], name))


def _opened(data: Mapping[str, Any], name: str, documents_of: Any) -> TextSource:
    documents, context = documents_of(data["split"]), data["context"]
    if not documents:
        raise UserError(f"{name} has 0 bytes of text: set --config.data.path=FILE_OR_FOLDER")
    tokenizer = tokenizers.chosen(data, lambda split: (document.text() for document in documents_of(split)))
    source = TextSource(documents, tokenizer, context, data["packing"])
    if (size := source.length_in_tokens) <= context:
        raise UserError(
            f"{data['split'] or 'all'} of {name} has {size} tokens of text, but a window needs data.context={context} "
            "and one more: "
            + (f"--config.data.context={size - 1}" if size > 1 else "set --config.data.path=FILE_OR_FOLDER")
        )
    return source
