"""Texts with a class each: TSV or CSV files with a header, Hugging Face's Parquet, or Python's own documentation."""

import csv
import hashlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.data import tokenizers
from gormley_vision.data.documents import Document, hold_out, python_topics
from gormley_vision.data.features import Example, Feature, label_feature
from gormley_vision.data.folder_listing import list_files, size_and_time
from gormley_vision.data.folder_source import SPLIT_NAMES
from gormley_vision.data.hf_source import SUFFIXES, files_of, text_rows
from gormley_vision.data.tokenizers import Tokenizer
from gormley_vision.errors import UserError, listed
from gormley_vision.files import user_path

TOPICS = ("compound", "debugger", "formatstrings", "string-methods", "typesmapping", "typesseq")
DELIMITERS = {".tsv": "\t", ".csv": ","}
_LOOKED_AT = 10_000  # texts whose length is compared with the context at the start

_log = logging.getLogger(__name__)


class TableSource:
    """Example i is row i: `tokens` [context], the text's first ones, `valid` bool [context], and `label`."""

    def __init__(
        self, identity: dict[str, Any], rows: list[tuple[str, str]], tokenizer: Tokenizer, context: int
    ) -> None:
        self.class_names = tuple(sorted({label for _, label in rows}))
        names = {name: number for number, name in enumerate(self.class_names)}
        self.labels = np.array([names[label] for _, label in rows], np.int32)
        self.features = text_features(context, tokenizer.size, tokenizer.saved(), self.class_names)
        self.identity = {"source": "table", **identity, "context": context}
        self.texts = [text for text, _ in rows]
        self._tokenizer, self._context = tokenizer, context
        lengths = [len(tokenizer.encode(text)[0]) for text in self.texts[:_LOOKED_AT]]
        if longer := sum(length > context for length in lengths):
            _log.warning(
                "%s of %s texts are longer than data.context=%d and are cut; the longest has %s tokens",
                *(f"{longer:,}", f"{len(lengths):,}", context, f"{max(lengths):,}"),
            )

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        tokens = self._tokenizer.encode(self.texts[index])[0][: self._context]
        padded = np.zeros(self._context, self.features["tokens"].dtype)
        padded[: len(tokens)] = tokens
        return {
            "tokens": padded,
            "valid": np.arange(self._context) < len(tokens),
            "label": np.asarray(self.labels[index]),
        }


def text_features(context: int, vocabulary: int, saved: str, class_names: tuple[str, ...]) -> dict[str, Feature]:
    """Return the features of a text with a class; `saved` is the tokenizer, as `Tokenizer.saved` returns it."""
    shape, dtype = (context,), tokenizers.dtype_of(vocabulary)
    return {
        "tokens": Feature("tokens", shape, dtype, mask="valid", tokenizer=saved, vocabulary=vocabulary),
        "valid": Feature("mask", shape, "bool"),
        **label_feature(class_names),
    }


def open_table(data: Mapping[str, Any]) -> TableSource:
    """Open `data.path`: a file, which is the split "train"; a folder with `<split>.tsv`; or a beginning of names.

    A beginning such as `texts/trec` finds `texts/trec_train.tsv`. Files are .tsv (a tab separates columns, quotes mean
    nothing) or .csv, with a header that names the columns `data.text_column` and `data.label_column`; or Hugging Face's
    .parquet or .arrow, as the source `hf` finds them.

    Raises:
        UserError: a file, a split or a column is missing, a row is too short, or the file is not UTF-8.
    """
    if not data["path"]:
        raise UserError("data.source='table' needs a table: --config.data.path=FILE.tsv")
    if data["text_column"] == data["label_column"]:
        raise UserError(f"text and label are both the column {data['text_column']!r}: --config.data.label_column=NAME")
    path, columns = user_path(data["path"]), [data["text_column"], data["label_column"]]

    def read(split: str) -> list[tuple[str, str]]:
        return [row for file in _files(path, split) for row in _labelled(file, columns)]

    tokenizer = tokenizers.chosen(data, lambda split: (text for text, _ in read(split)))
    files = [[file.name, *size_and_time(file)] for file in _files(path, data["split"])]
    return TableSource({"files": files, "columns": columns}, read(data["split"]), tokenizer, data["context"])


def _labelled(file: Path, columns: list[str]) -> list[tuple[str, str]]:
    rows = [(text, label) for text, label in rows_of(file, columns)]
    if not rows:
        raise UserError(f"{file} has a header and no rows: --config.data.path=FILE.tsv with a text and a label in each")
    blank = [number for number, (_, label) in enumerate(rows, start=1) if not label.strip()]
    if blank:
        raise UserError(
            f"{file}: {len(blank):,} rows have no label, first row {blank[0]}: give each a class, or leave it out"
        )
    return rows


def open_python_paragraphs(data: Mapping[str, Any]) -> TableSource:
    """Open paragraphs of six topics of `help()`, whose classes are the topics: a table that needs no file.

    Raises:
        UserError: there is no such split; a tenth, drawn once, is "validation".
    """

    def read(split: str) -> list[tuple[str, str]]:
        chosen = hold_out([d for d in _python_paragraphs() if d.size > 60], split, 0.1, "Python's documentation")
        return [(document.text(), document.name) for document in chosen]

    tokenizer = tokenizers.chosen(data, lambda split: (text for text, _ in read(split)))
    rows = read(data["split"])
    digest = hashlib.sha256("".join(text for text, _ in rows).encode()).hexdigest()
    return TableSource({"rows": digest}, rows, tokenizer, data["context"])


def _python_paragraphs() -> list[Document]:
    topics = {document.name: document.text() for document in python_topics()}
    paragraphs = [(name, part.encode()) for name in TOPICS for part in topics[f"topic {name!r}"].split("\n\n")]
    read = [lambda start, stop, part=part: part[start:stop] for _, part in paragraphs]
    return [Document(name, (), read[i], 0, len(part)) for i, (name, part) in enumerate(paragraphs)]


def _files(path: Path, split: str) -> list[Path]:
    """Return the files of a split; all of them for ''."""
    if path.suffix in SUFFIXES or (path.is_dir() and not any(path.glob("*.[tc]sv")) and _parquet_below(path)):
        root, files = files_of(path, split)
        return [root / file for file in files]
    if path.is_file():
        if split not in ("", "train"):
            raise UserError(
                f"{path} is one split, 'train': take parts of it, as in --config.data.split='train[:90%]' "
                "--config.eval.split='train[90%:]'"
            )
        return [path]
    found = {}
    for name in SPLIT_NAMES:
        for suffix in DELIMITERS:
            beside = [path.with_name(f"{path.name}_{name}{suffix}")] if path.name else []
            for file in (path / f"{name}{suffix}", *beside):
                if file.is_file():
                    found[name] = file
    if not found:
        raise UserError(f"no table at {path.absolute()}: --config.data.path=FILE.tsv, or a folder with train.tsv")
    if split and split not in found:
        raise UserError(f"{path} has {', '.join(found)}, and no {split!r}: --config.data.split={next(iter(found))}")
    return [found[split]] if split else list(found.values())


def _parquet_below(path: Path) -> bool:
    return any(file.endswith(SUFFIXES) for file in list_files(path))


def rows_of(file: Path, columns: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield these columns of each row of a table; blank lines are no rows.

    Raises:
        UserError: it is missing, not UTF-8, has no such column or several, or a row does not fit the header.
    """
    if file.suffix in SUFFIXES:
        yield from text_rows(file, columns)
        return
    delimiter = DELIMITERS.get(file.suffix.lower())
    if delimiter is None:
        raise UserError(f"{file} is neither .tsv nor .csv nor .parquet: name it after what separates its columns")
    content, quoted = _content(file), delimiter == ","
    csv.field_size_limit(max(csv.field_size_limit(), len(content) + 1))  # the module's own is 131,072
    lines = io.StringIO(content, newline="")  # not splitlines, to which U+2028 and others end a line, too
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    table = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=quoted)
    try:
        header = next(table, [])
        at = _columns(file, header, columns)
        for row in filter(None, table):
            if len(row) != len(header):
                raise UserError(
                    f"{file}, line {table.line_num}: {len(row)} columns, and the header has {len(header)}: "
                    + ("quote a text with commas" if quoted else "put no tab into a text")
                )
            yield tuple(row[i] for i in at)
    except csv.Error as error:
        where = f"{file}, before line {table.line_num + 1}"
        raise UserError(f"{where}: {error}; close each quote, and double it in a text") from None


def _content(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: byte {error.start} ({error.reason}); save it as UTF-8") from None


def _columns(file: Path, header: list[str], columns: list[str]) -> list[int]:
    """Return where the columns are."""
    if missing := [column for column in columns if column not in header]:
        raise UserError(
            f"{file} has no column {listed(missing)}: its header is {listed(header) or 'empty'}; "
            "--config.data.text_column=NAME --config.data.label_column=NAME"
        )
    if twice := [column for column in columns if header.count(column) > 1]:
        raise UserError(f"{file} has several columns {listed(twice)}: rename all but one in its header")
    return [header.index(column) for column in columns]
