"""The documents of a text: files, or what Python's own documentation has; and which of them are held out."""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gormley_vision.data.folder_listing import list_files, size_and_time
from gormley_vision.data.folder_source import SPLIT_NAMES
from gormley_vision.data.order import epoch_permutation
from gormley_vision.errors import UserError

HELD_OUT = "validation"  # the name of the part that is held out of text without splits
_SEED = 0x7E57  # which documents; changing it would move them between the two parts of every text


class Document(NamedTuple):
    """Bytes `start` to `stop` of what `read` reads, by (start, stop); `identity` is JSON that changes with them."""

    name: str
    identity: tuple[Any, ...]
    read: Callable[[int, int], bytes]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.stop - self.start

    def content(self, start: int, stop: int) -> np.ndarray:
        """Return bytes `start` to `stop`, counted from the document's own start: uint8 [stop - start].

        Raises:
            UserError: the file cannot be read, has changed, or is not text.
        """
        try:
            content = np.frombuffer(self.read(self.start + start, self.start + stop), np.uint8)
        except OSError as error:
            raise UserError(f"cannot read the text {self.name}: {error}") from error
        if len(content) != stop - start:
            raise UserError(f"the text {self.name} was cut short while it was read: run the same command again")
        if not content.all():
            raise UserError(f"{self.name} is not text: it has a zero byte. Save it as UTF-8, or move it away")
        return content

    def text(self) -> str:
        """Return all of it.

        Raises:
            UserError: it is not UTF-8; names the first byte that is not.
        """
        content = self.content(0, self.size).tobytes()
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.name} is not UTF-8: byte {self.start + error.start} is 0x{content[error.start]:02X} "
                f"({error.reason}). Save it as UTF-8, or pass --config.data.tokenizer=bytes, which reads anything"
            ) from None


def python_topics() -> list[Document]:
    """Return the topics of `help()`, CPython's language reference: a text that needs no file, different by version."""
    from pydoc_data.topics import topics

    documents = []
    for name, text in sorted(topics.items()):
        content = text.encode()
        identity = (name, hashlib.sha256(content).hexdigest())
        read = lambda start, stop, content=content: content[start:stop]  # noqa: E731
        documents.append(Document(f"topic {name!r}", identity, read, 0, len(content)))
    return documents


def find_documents(path: Path, split: str, held_out: float) -> list[Document]:
    """Return the documents of a split of a file or folder, in order.

    In a folder, the split is its subfolder `<split>` or its file `<split>.txt`. Where there are none, all visible
    files at any depth, sorted by name, are one text, of which `hold_out` makes "train" and "validation"; "" is all.

    Raises:
        UserError: there is no such file, folder or split.
    """
    if path.is_file():
        return hold_out(_files(path.parent, [path.name]), split, held_out, str(path))
    if not path.is_dir():
        raise UserError(f"no text at {path.absolute()}: set --config.data.path=FILE_OR_FOLDER")
    if split and (path / split).is_dir():
        return _files(path / split, list_files(path / split))
    if split and (path / f"{split}.txt").is_file():
        return _files(path, [f"{split}.txt"])
    files = list_files(path)
    named = {part for file in files for part in (file.split("/")[0], file.removesuffix(".txt")) if part in SPLIT_NAMES}
    if split and named:  # else what is evaluated on would be trained on
        raise UserError(
            f"{path} has {', '.join(sorted(named))}, and no {split}.txt or subfolder {split!r}: name the text to train "
            "on 'train', the other as in --config.eval.split, or take all of it as one split: --config.data.split=''"
        )
    return hold_out(_files(path, files), split, held_out, str(path))


def hold_out(documents: list[Document], split: str, share: float, name: str) -> list[Document]:
    """Return the documents of "train" or "validation", in order; all for "".

    Held out is a share of the documents, at least one, drawn by a fixed seed; of a single document its last part.

    Raises:
        UserError: the split has another name, or nothing is held out.
    """
    if not split or (split == "train" and not share):
        return documents
    if split not in ("train", HELD_OUT):
        raise UserError(
            f"{name} has no {split!r}: where nothing is named so, it is 'train' and 'validation', the part of "
            "data.held_out: --config.data.split=train --config.eval.split=validation"
        )
    if not share:
        raise UserError(f"nothing is held out for {HELD_OUT!r}: --config.data.held_out=0.1")
    if len(documents) == 1:
        (document,) = documents
        cut = document.start + math.floor(document.size * (1 - share) + 1e-9)  # 0.9 * 10 is 9
        while document.start < cut < document.stop and _continues(document, cut):
            cut -= 1
        return [document._replace(stop=cut) if split == "train" else document._replace(start=cut)]
    count = max(1, round(share * len(documents)))
    held = set(epoch_permutation(_SEED, 0, len(documents))[:count].tolist())
    return [document for number, document in enumerate(documents) if (number in held) == (split == HELD_OUT)]


def _continues(document: Document, position: int) -> bool:
    """Return whether a byte is inside of a character of UTF-8."""
    return document.read(position, position + 1)[0] & 0xC0 == 0x80


def _files(root: Path, names: Sequence[str]) -> list[Document]:
    """Return those that are not empty."""
    described = [(root / name, (name, *size_and_time(root / name))) for name in names]
    return [Document(str(path), told, _reader(path), 0, told[1]) for path, told in described if told[1]]


def _reader(path: Path) -> Callable[[int, int], bytes]:
    def read(start: int, stop: int) -> bytes:
        with path.open("rb") as file:  # each time: there may be a million
            file.seek(start)
            return file.read(stop - start)

    return read
