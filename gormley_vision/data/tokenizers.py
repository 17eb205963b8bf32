"""Tokenizers: text to integers and back, saved as text, so that a run has all it needs to read a prompt.

Four kinds. Bytes of UTF-8, 0 to 255, which need no vocabulary. Characters (code points), numbered in ascending order.
And any that Hugging Face's `tokenizers` can load, among them byte-level byte-pair encoding (Sennrich et al. 2016,
arXiv:1508.07909) and words between spaces, both trained here on the user's own text, or a released `tokenizer.json`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gormley_vision.errors import UserError, listed
from gormley_vision.files import user_path

UNKNOWN = "[UNK]"
KINDS = ("bytes", "characters", "words", "bpe")


class Tokenizer(Protocol):
    """Maps text to tokens 0 ... size - 1 and back; texts concatenated need not be tokens concatenated."""

    @property
    def size(self) -> int:
        """The number of tokens, V."""

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens [T] of `dtype`, and how many bytes of UTF-8 each stands for, which sum to the text's.

        Raises:
            UserError: the vocabulary lacks a part of the text.
        """

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""

    def saved(self) -> str:
        """Return JSON that `from_saved` reads."""


def dtype_of(size: int) -> str:
    """Return the smallest type of tokens in a vocabulary of this size."""
    return "uint8" if size <= 2**8 else "uint16" if size <= 2**16 else "int32"


class Bytes:
    """A token is a byte."""

    size = 256

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the text's bytes."""
        tokens = np.frombuffer(text.encode(), np.uint8)
        return tokens, np.ones(len(tokens), np.uint8)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the bytes' text."""
        return bytes(int(token) for token in tokens).decode(errors="replace")

    def saved(self) -> str:
        """Return JSON that says so."""
        return json.dumps({"bytes": True})


class Characters:
    """A token is a character of `characters`."""

    def __init__(self, characters: str) -> None:
        self._codes = np.array(sorted(set(map(ord, characters))), np.uint32)
        self.size = len(self._codes)

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the characters' numbers."""
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        tokens = np.minimum(np.searchsorted(self._codes, codes), self.size - 1)
        if unknown := sorted(set(codes[self._codes[tokens] != codes].tolist())):
            raise UserError(
                f"the vocabulary of {self.size} characters lacks {listed([repr(chr(code)) for code in unknown])}: "
                "leave them out, or train with --config.data.tokenizer=bytes, which can spell anything"
            )
        lengths = 1 + (codes > 0x7F).astype(np.uint8) + (codes > 0x7FF) + (codes > 0xFFFF)
        return tokens.astype(dtype_of(self.size)), lengths.astype(np.uint8)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the characters."""
        return "".join(chr(self._codes[token]) for token in tokens)

    def saved(self) -> str:
        """Return JSON with all characters."""
        return json.dumps({"characters": "".join(map(chr, self._codes))})


class HuggingFace:
    """A tokenizer of the library `tokenizers`; special tokens are not added to texts."""

    def __init__(self, saved: str) -> None:
        self._saved = saved

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            return _library().Tokenizer.from_str(self._saved)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"this tokenizer cannot be loaded by the library tokenizers: {error}") from None

    @property
    def size(self) -> int:
        """One more than the largest token."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the text's tokens."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        tokens = np.array(encoding.ids, dtype_of(self.size))
        if not len(tokens):
            return tokens, np.zeros(0, np.int32)
        # Byte-level tokens may end inside of a character, and normalisers drop some: differences of ends sum to all.
        bytes_before = np.cumsum([0, *(len(character.encode()) for character in text)])
        ends = np.maximum.accumulate([end for _, end in encoding.offsets])
        ends[-1] = len(text)
        return tokens, np.diff(bytes_before[ends], prepend=0).astype(np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the tokens' text."""
        return self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=False)

    def saved(self) -> str:
        """Return the library's JSON."""
        return self._saved


def from_saved(saved: str) -> Tokenizer:
    """Return the tokenizer that `Tokenizer.saved` describes.

    Raises:
        UserError: it is not one.
    """
    if not saved:  # tokens of a source that says nothing of them
        return Bytes()
    try:
        content = json.loads(saved)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError("a tokenizer is JSON, such as the tokenizer.json of a run, or of the library tokenizers")
    if content.get("bytes"):
        return Bytes()
    characters = content.get("characters")
    return Characters(characters) if isinstance(characters, str) and characters else HuggingFace(saved)


def from_file(path: Path) -> Tokenizer:
    """Load a tokenizer.json, of a run of this project or of the library `tokenizers`.

    Raises:
        UserError: there is none.
    """
    try:
        saved = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.tokenizer={path}: {error}; pass {', '.join(KINDS)}, or the path of a tokenizer.json"
        ) from None
    try:
        tokenizer = from_saved(saved)
        tokenizer.size  # noqa: B018  Hugging Face's is parsed when first used
    except UserError as error:
        raise UserError(f"data.tokenizer={path}: {error}") from None
    return tokenizer


def chosen(data: Mapping[str, Any], texts_of: Callable[[str], Iterable[str]]) -> Tokenizer:
    """Return the tokenizer that `data.tokenizer` names; trained ones are the same for every split of a text.

    Characters are those of all splits, as a character that only another split has could not be evaluated; byte pairs
    and words are those of "train".

    Args:
        data: a config's data section.
        texts_of: the texts of a split; "" for all.
    """
    kind = data["tokenizer"]
    if kind == "bytes":
        return Bytes()
    if kind == "characters":
        return Characters("".join({character for text in texts_of("") for character in text}))
    if kind in TRAINED:
        return TRAINED[kind](texts_of("train"), data["vocabulary"])
    return from_file(user_path(kind))


def train_byte_pairs(texts: Iterable[str], size: int) -> HuggingFace:
    """Train byte-level byte-pair encoding of `size` tokens, the first 256 of which are bytes: nothing is unknown.

    A function of the texts and of the library's version. Raises UserError without the library.
    """
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return HuggingFace(tokenizer.to_str())


def frequent_words(texts: Iterable[str], size: int) -> HuggingFace:
    """Number the most frequent words, at most `size` - 1; token 0 is any other word. A word is what spaces separate.

    The same words have the same numbers whatever their order. Raises UserError without the library.
    """
    library = _library()
    tokenizer = library.Tokenizer(library.models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    trainer = library.trainers.WordLevelTrainer(vocab_size=size, special_tokens=[UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return HuggingFace(tokenizer.to_str())


TRAINED: dict[str, Callable[[Iterable[str], int], Tokenizer]] = {"bpe": train_byte_pairs, "words": frequent_words}


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise UserError(
            'words, byte pairs and released tokenizers need the library tokenizers: pip install -e ".[text]"'
        ) from None
    return tokenizers
