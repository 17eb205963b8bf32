"""Text as windows of bytes: by hand, over the ends of files, and in batches."""

import numpy as np
import pytest

from gormley_vision.data.batches import open_batches
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError


@pytest.fixture
def opened(tmp_path):
    """Writes files below tmp_path/texts, and opens that folder; the data section has no key of images."""

    def open_text(files, path="texts", **changes):
        for name, text in files.items():
            (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "texts" / name).write_bytes(text)
        data = {"source": "text", "path": str(tmp_path / path), "split": "train", "context": 4, "packing": False}
        return open_source(data | {"held_out": 0.0, "tokenizer": "bytes", "vocabulary": 300} | changes)

    return open_text


def texts(source):
    return [example["tokens"][example["valid"]].tobytes() for example in source]


def test_windows_share_a_token_and_cross_files_in_sorted_order(opened):
    files = {"b/2.txt": b"ijk", "a.txt": b"abcdefgh", "b/10.md": b"", ".hidden": b"zzzz", "b/1.txt": b"12"}
    source = opened(files)  # abcdefgh12ijk
    assert texts(source) == [b"abcde", b"efgh1", b"12ijk"]
    assert source.features.keys() == {"tokens", "valid", "bytes"}
    assert source[1]["tokens"].dtype == np.uint8
    source = opened({}, context=5)
    assert texts(source) == [b"abcdef", b"fgh12i", b"ijk"]
    assert source[2]["tokens"].tobytes() == b"ijk\0\0\0"
    assert [int(example["bytes"]) for example in source] == [5, 5, 2]  # all but the first of the text, once
    assert texts(opened({}, path="texts/a.txt")) == [b"abcde", b"efgh"]
    with pytest.raises(IndexError):
        source[3]


def test_packing_numbers_documents_and_begins_positions_anew(opened):
    source = opened({"1": b"abcdef", "2": b"g", "3": b"hijklmn"}, packing=True)
    assert texts(source) == [b"abcde", b"efghi", b"ijklm", b"mn"]
    segments = [[0] * 5, [0, 0, 1, 2, 2], [0] * 5, [0, 0, 1, 1, 1]]  # padding is a document of its own
    assert [example["segments"].tolist() for example in source] == segments
    positions = [[0, 1, 2, 3, 4], [0, 1, 0, 0, 1], [0, 1, 2, 3, 4], [0, 1, 0, 1, 2]]
    assert [example["positions"].tolist() for example in source] == positions
    assert [int(example["bytes"]) for example in source] == [4, 2, 4, 1]  # first ones of a document are not predicted
    assert {name: (f.kind, f.shape, f.dtype) for name, f in source.features.items()} == {
        "tokens": ("tokens", (5,), "uint8"),
        "valid": ("mask", (5,), "bool"),
        "bytes": ("vector", (), "int32"),
        "segments": ("tokens", (5,), "int32"),
        "positions": ("tokens", (5,), "int32"),
    }


def test_bytes_are_tokens_whatever_they_spell(opened):
    assert opened({"1": "žluť".encode()}, context=5)[0]["tokens"].tolist() == [0xC5, 0xBE, 0x6C, 0x75, 0xC5, 0xA5]


def test_splits_are_subfolders_or_files(opened):
    opened({"train.txt": b"abcde", "test.txt": b"fghij", "val/x": b"klmno"})
    assert [texts(opened({}, split=split)) for split in ("train", "test", "val")] == [
        [b"abcde"],
        [b"fghij"],
        [b"klmno"],
    ]
    assert texts(opened({}, split="")) == [b"fghij", b"jabcd", b"deklm", b"mno"]
    with pytest.raises(UserError, match=r"has test, train, val, and no dev\.txt or subfolder 'dev'"):
        opened({}, split="dev")
    with pytest.raises(UserError, match=r"test\.txt has no 'test': .*--config.eval.split=validation"):
        opened({}, path="texts/test.txt", split="test")


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        ({}, {"path": "no"}, r"no text at .*/no: set --config.data.path=FILE_OR_FOLDER"),
        ({"1": b"abcd"}, {}, r"has 4 tokens of text, .*data.context=4 and one more: --config.data.context=3"),
        ({"1": b""}, {}, r"has 0 bytes .*set --config.data.path"),
    ],
)
def test_text_that_is_not_there_is_refused(opened, files, changes, message):
    with pytest.raises(UserError, match=message):
        opened(files, **changes)


def test_what_is_no_text_is_named_when_it_is_read(opened, tmp_path):
    source = opened({"a": b"abcd", "b.png": b"\x89P\0\0\0"})
    with pytest.raises(UserError, match=r"texts/b.png is not text"):
        texts(source)
    (tmp_path / "texts/b.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"b.png was cut short"):
        texts(source)
    (tmp_path / "texts/b.png").unlink()
    with pytest.raises(UserError, match=r"cannot read the text .*b.png"):
        texts(source)
    (tmp_path / "texts/a").write_bytes(b"ab")
    with pytest.raises(UserError, match="was cut short"):
        texts(source)


def test_batches_of_text_are_the_windows_in_every_placement(opened, tmp_path):
    words = bytes(np.random.default_rng(0).integers(1, 256, 100).astype(np.uint8))
    opened({"1": words[:30], "2": words[30:]})
    data = {"source": "text", "path": str(tmp_path / "texts"), "split": "train[:80%]", "context": 9, "packing": True}
    data |= {"batch_size": 4, "workers": 0, "cache_dir": str(tmp_path / "cache"), "held_out": 0.0, "tokenizer": "bytes"}
    needs = {"tokens": "tokens"}
    host, stream, device = (
        open_batches(seed=1, minibatches=2, data=data | {"placement": placement}, needs=needs)
        for placement in ("host", "stream", "device")
    )
    assert host.length == 9  # of 99 // 9 = 11 windows, 8.8
    assert (host.class_names, host.image_shape) == ((), ())
    expected = host.read(3)
    assert expected["tokens"].shape == (2, 4, 10)
    assert all(window.tobytes() in words for window in expected["tokens"].reshape(8, 10))
    for batches in (stream, device):
        found = batches.fetch(batches.resident, batches.read(3))
        assert all((np.asarray(found[name]) == array).all() for name, array in expected.items())
    with pytest.raises(UserError, match=r"'image' of kind image .*offers tokens \(tokens uint8 \[10\]\), valid"):
        open_batches(seed=1, minibatches=2, data=data | {"placement": "host"}, needs={"image": "image"})


def test_the_identity_changes_with_files_and_windows(opened, tmp_path):
    source = opened({"1": b"abcdefgh"})
    identities = [source.identity, opened({}, context=3).identity, opened({}, packing=True).identity]
    assert opened({}).identity == source.identity
    identities.append(opened({"1": b"abcdefghi"}).identity)
    assert all(one != other for i, one in enumerate(identities) for other in identities[:i])


def test_text_named_as_another_split_is_not_trained_on(opened):
    opened({"book.txt": b"abcdefgh"})
    opened({"test.txt": b"secret of the test"}, split="test")
    with pytest.raises(UserError, match=r"has test, and no train\.txt .*--config\.data\.split=''"):
        opened({})
    assert len(opened({}, split="")) == 7  # 26 bytes by 4


def test_the_last_tenth_of_a_single_document_is_held_out(opened):
    options = {"path": "texts/1", "held_out": 0.1, "context": 2}
    opened({"1": b"abcdefghijklmnopqrst"})
    assert b"".join(text[:-1] for text in texts(opened({}, **options))) == b"abcdefghijklmnopq"
    assert texts(opened({}, **options | {"context": 1}, split="validation")) == [b"st"]
    # Not inside of a character: the cut at 27 of 30 bytes is one byte into the last one of four.
    opened({"1": b"a" * 26 + "\U0001f600".encode()})
    assert texts(opened({}, **options, split="validation"))[0] == "\U0001f600".encode()[:3]
    assert len(opened({}, **options)) == 13
    with pytest.raises(UserError, match=r"nothing is held out for 'validation': --config\.data\.held_out=0\.1"):
        opened({}, path="texts/1", split="validation")


def test_of_several_documents_some_are_held_out(opened):
    opened({f"{i:02d}": bytes([65 + i]) * 9 for i in range(20)})
    held, rest = (set(b"".join(texts(opened({}, held_out=0.1, split=split)))) for split in ("validation", "train"))
    assert len(held) == 2
    assert not held & rest
    assert len(held | rest) == 20
    assert held == set(b"".join(texts(opened({}, held_out=0.1, split="validation"))))  # the same ones each time


def test_characters_are_those_of_all_splits_and_are_counted_in_bytes(opened):
    source = opened({"train.txt": "žluťoučký kůň".encode(), "test.txt": b"xyz12"}, tokenizer="characters", context=3)
    tokens = source.features["tokens"]
    assert (tokens.vocabulary, tokens.dtype) == (len(set("žluťoučký kůňxyz12")), "uint8")
    assert sum(int(example["bytes"]) for example in source) == len("luťoučký kůň".encode())
    assert opened({}, split="test", tokenizer="characters", context=3).features["tokens"] == tokens


def test_a_byte_that_is_not_utf_8_is_named(opened):
    with pytest.raises(UserError, match=r"texts/1 is not UTF-8: byte 5 is 0xE9 .*--config\.data\.tokenizer=bytes"):
        opened({"1": b"abcd \xe9 efgh"}, tokenizer="characters")


def test_pythons_own_documentation_is_a_text(opened):
    options = {"source": "python_topics", "context": 64, "held_out": 0.1}
    sizes = [opened({}, **options, split=split).length_in_tokens for split in ("train", "validation", "")]
    assert sizes[0] + sizes[1] == sizes[2] > 400_000
    assert 0 < sizes[1] < sizes[0]
