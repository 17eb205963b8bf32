"""Tokenizers: there and back, sizes in bytes, and what a vocabulary lacks."""

import json

import numpy as np
import pytest
import tokenizers as library
from hypothesis import given
from hypothesis import strategies as st

from gormley_vision.data import tokenizers
from gormley_vision.data.tokenizers import Bytes, Characters, frequent_words, from_file, from_saved, train_byte_pairs
from gormley_vision.errors import UserError

TEXT = "To be, or not to be: that is the question. Ž 😀 to be, or not to be\n" * 5
PAIRS = train_byte_pairs([TEXT], 300)


def made(kind, text):
    return {"bytes": Bytes(), "characters": Characters(text or "x"), "bpe": PAIRS}[kind]


@pytest.mark.parametrize("kind", sorted({*tokenizers.KINDS} - {"words"}))
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_there_and_back(kind, text):
    tokenizer = made(kind, text)
    tokens, sizes = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert sizes.sum() == len(text.encode())
    assert len(sizes) == len(tokens)
    assert tokens.dtype == tokenizers.dtype_of(tokenizer.size)
    assert not len(tokens) or tokens.max() < tokenizer.size
    again = from_saved(tokenizer.saved())
    assert (again.size, again.saved()) == (tokenizer.size, tokenizer.saved())
    np.testing.assert_array_equal(again.encode(text)[0], tokens)


def test_by_hand():
    assert Bytes().encode("aé")[0].tolist() == [97, 0xC3, 0xA9]
    assert Bytes().decode([0xC3]) == "\ufffd"
    characters = Characters("hello")
    assert (characters.size, characters.encode("lol")[0].tolist()) == (4, [2, 3, 2])
    tokens, sizes = Characters("aé😀").encode("😀éa")
    assert (tokens.tolist(), sizes.tolist()) == ([2, 1, 0], [4, 2, 1])
    assert [tokenizers.dtype_of(n) for n in (256, 257, 65536, 65537)] == ["uint8", "uint16", "uint16", "int32"]


def test_byte_pairs_merge_what_is_frequent():
    tokens, sizes = PAIRS.encode("not to be")
    assert 256 < PAIRS.size <= 300
    assert len(tokens) < 6 < sizes.sum()
    assert train_byte_pairs([TEXT], 300).saved() == PAIRS.saved()  # a function of the text


def test_words_are_the_most_frequent_ones():
    texts = ["to be or not to be", "be it so , or not", "hapax"]
    tokenizer = frequent_words(texts, 5)
    tokens, sizes = tokenizer.encode("be  to  Or be!")
    assert tokenizer.size == 5
    assert tokenizer.decode(tokens) == "be to [UNK] [UNK]"
    assert sizes.sum() == len("be  to  Or be!")
    assert tokenizer.encode("be not or to so")[0].tolist() == [1, 2, 3, 4, 0]  # equally frequent ones by the alphabet
    assert frequent_words(texts[::-1], 5).saved() == tokenizer.saved() == from_saved(tokenizer.saved()).saved()


def test_a_released_tokenizer_loads(tmp_path):
    """A word-level one with normaliser and special tokens, as BERT's are: neither byte-level nor lossless."""
    released = library.Tokenizer(
        library.models.WordLevel({"[UNK]": 0, "[CLS]": 1, "to": 2, "be": 3}, unk_token="[UNK]")
    )
    released.normalizer = library.normalizers.Lowercase()
    released.pre_tokenizer = library.pre_tokenizers.Whitespace()
    released.post_processor = library.processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 1)])
    released.save(str(tmp_path / "tokenizer.json"))
    tokenizer = from_file(tmp_path / "tokenizer.json")
    tokens, sizes = tokenizer.encode("To  be ému")
    assert tokens.tolist() == [2, 3, 0]
    assert sizes.tolist() == [2, 4, 5]  # spaces belong to the word after them
    assert tokenizer.size == 4


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"vocabulary of 2 characters lacks 'x', 'é': .*tokenizer=bytes"):
        Characters("ab").encode("axbéx")
    with pytest.raises(UserError, match=r"data.tokenizer=.*charcters: .*pass bytes, characters, words, bpe"):
        from_file(tmp_path / "charcters")
    for text in ("not json", "[1]", json.dumps({"model": "nothing"})):
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(UserError, match=r"data.tokenizer=.*wrong.json: "):
            from_file(tmp_path / "wrong.json")
