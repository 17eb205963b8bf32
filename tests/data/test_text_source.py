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
        return open_source(data | changes)

    return open_text


def texts(source):
    return [example["tokens"].tobytes() for example in source]


def test_windows_share_a_token_and_cross_files_in_sorted_order(opened):
    files = {"b/2.txt": b"ijk", "a.txt": b"abcdefgh", "b/10.md": b"", ".hidden": b"zzzz", "b/1.txt": b"12"}
    source = opened(files)  # abcdefgh12ijk
    assert texts(source) == [b"abcde", b"efgh1", b"12ijk"]
    assert source.features.keys() == {"tokens"}
    assert source[1]["tokens"].dtype == np.uint8
    assert texts(opened({}, context=5)) == [b"abcdef", b"fgh12i"]  # "jk" is too short
    assert texts(opened({}, path="texts/a.txt")) == [b"abcde"]
    with pytest.raises(IndexError):
        source[3]


def test_packing_numbers_documents_and_begins_positions_anew(opened):
    source = opened({"1": b"abcdef", "2": b"g", "3": b"hijklm"}, packing=True)
    assert texts(source) == [b"abcde", b"efghi", b"ijklm"]
    assert [example["segments"].tolist() for example in source] == [[0] * 5, [0, 0, 1, 2, 2], [0] * 5]
    assert [example["positions"].tolist() for example in source] == [[0, 1, 2, 3, 4], [0, 1, 0, 0, 1], [0, 1, 2, 3, 4]]
    assert {name: (f.kind, f.shape, f.dtype) for name, f in source.features.items()} == {
        "tokens": ("tokens", (5,), "uint8"),
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
    assert texts(opened({}, split="")) == [b"fghij", b"jabcd", b"deklm"]
    with pytest.raises(UserError, match=r"no subfolder 'dev' and no dev.txt; .*--config.data.split=train"):
        opened({}, split="dev")
    with pytest.raises(UserError, match=r"test\.txt is one split, 'train'"):
        opened({}, path="texts/test.txt", split="test")


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        ({}, {"path": "no"}, r"no text at .*/no: set --config.data.path=FILE_OR_FOLDER"),
        ({"1": b"abcd"}, {}, r"has 4 bytes of text, .*data.context=4 and one more: --config.data.context=3"),
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
    with pytest.raises(UserError, match=r"cannot read the text .*b.png"):
        texts(source)
    (tmp_path / "texts/a").write_bytes(b"ab")
    with pytest.raises(UserError, match="was cut short"):
        texts(source)


def test_batches_of_text_are_the_windows_in_every_placement(opened, tmp_path):
    words = bytes(np.random.default_rng(0).integers(1, 256, 100).astype(np.uint8))
    opened({"1": words[:30], "2": words[30:]})
    data = {"source": "text", "path": str(tmp_path / "texts"), "split": "train[:80%]", "context": 9, "packing": True}
    data |= {"batch_size": 4, "workers": 0, "cache_dir": str(tmp_path / "cache")}
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
    with pytest.raises(UserError, match=r"'image' of kind image .*offers tokens \(tokens uint8 \[10\]\)"):
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
    assert len(opened({}, split="")) == 6  # 26 bytes by 4
