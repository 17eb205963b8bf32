"""Parquet and Arrow as Hugging Face's `datasets` writes them, made here with pyarrow; nothing needs a network."""

import importlib.util
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import ipc, parquet

from gormley_vision.data import hf_source
from gormley_vision.data.batches import open_batches
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def png(value, mode="L"):
    buffer = io.BytesIO()
    Image.new(mode, (8, 8), value).save(buffer, "png")
    return buffer.getvalue()


def table(values, features=FEATURES, **columns):
    """Picture i is filled with values[i] and has the label values[i] % 2."""
    pictures = pa.array([{"bytes": png(value), "path": None} for value in values], PICTURE)
    made = pa.table({"image": pictures, "label": pa.array([value % 2 for value in values], pa.int64())} | columns)
    return made.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    )


def write(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(rows, path, **options)
        return
    make = ipc.new_file if options.get("random_access") else ipc.new_stream
    with pa.OSFile(str(path), "wb") as file, make(file, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=2)


@pytest.fixture
def opened(settings, tmp_path):
    usual = {"source": "hf", "path": str(tmp_path / "set"), "channels": 1}
    return lambda **changes: open_source(settings | usual | changes)


def values(source):
    return [(int(example["image"][0, 0, 0]), int(example["label"])) for example in source]


def test_texts_with_classes_are_a_table(tmp_path):
    features = {"sentence": {"_type": "Value"}, "label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    rows = {"idx": [7, 8, 9], "sentence": ["one", "two", "three"], "label": [1, 0, -1]}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    made = pa.table(rows).replace_schema_metadata(noted)
    write(tmp_path / "set/data/train-00000-of-00001.parquet", made.slice(0, 2))
    write(tmp_path / "set/data/test-00000-of-00001.parquet", made)
    write(tmp_path / "arrow/train/data-00000-of-00001.arrow", made.slice(0, 2))
    write(tmp_path / "plain.parquet", pa.table({"text": ["a", "b"], "label": [3, 4]}))
    usual = {"source": "table", "split": "train", "context": 5, "tokenizer": "bytes", "vocabulary": 300}
    usual |= {"text_column": "sentence", "label_column": "label"}

    def opened_table(name, **changes):
        return open_source(usual | {"path": str(tmp_path / name)} | changes)

    for name in ("set", "arrow"):
        source = opened_table(name)
        assert (source.texts, source.class_names, source.labels.tolist()) == (["one", "two"], ("no", "yes"), [1, 0])
    plain = opened_table("plain.parquet", text_column="text")
    assert (plain.texts, plain.class_names) == (["a", "b"], ("3", "4"))
    with pytest.raises(UserError, match=r"test-00000.* \(example 2\) has -1 as 'label': leave such rows out"):
        opened_table("set", split="test")
    with pytest.raises(UserError, match=r"no column text: its columns are idx, sentence, label; .*text_column"):
        opened_table("set", text_column="text")
    with pytest.raises(UserError, match="no split 'validation'; it has test, train"):
        opened_table("set", split="validation")


def test_the_files_of_a_split_are_read_one_behind_the_other(opened, tmp_path):
    write(tmp_path / "set/data/train-00000-of-00002.parquet", table([10, 11, 12]), row_group_size=2)
    write(tmp_path / "set/data/train-00001-of-00002.parquet", table([13]))
    write(tmp_path / "set/data/test-00000-of-00001.parquet", table([21, 20]))
    source = opened()
    assert source.class_names == source.features["label"].class_names == ("cat", "dog")
    assert values(source) == [(10, 0), (11, 1), (12, 0), (13, 1)]
    assert values(opened(split="test")) == [(21, 1), (20, 0)]
    assert values(opened(path=str(tmp_path / "set/data/test-00000-of-00001.parquet"), split="test")) == [
        (21, 1),
        (20, 0),
    ]
    assert sorted(values(opened(split="train[:2]")) + values(opened(split="train[2:]"))) == values(source)
    with pytest.raises(UserError, match=r"no split 'validation'; it has test, train: --config.data.split=test"):
        opened(split="validation")


@pytest.mark.parametrize("random_access", [False, True])
def test_arrow_is_read_as_save_to_disk_leaves_it(opened, tmp_path, random_access):
    for split, rows in (("train", [1, 2, 3]), ("test", [5])):
        write(tmp_path / f"set/{split}/data-00000-of-00001.arrow", table(rows), random_access=random_access)
        write(tmp_path / f"set/{split}/cache-0123456789abcdef.arrow", table([9]))
    assert values(opened()) == [(1, 1), (2, 0), (3, 1)]
    assert values(opened(path=str(tmp_path / "set/test"))) == [(5, 1)]  # where nothing names a split
    assert opened().identity != opened(split="test").identity


def test_a_row_group_is_decompressed_once_for_readers_in_order(opened, tmp_path, monkeypatch):
    read, groups = hf_source._read_row_group, []
    monkeypatch.setattr(hf_source, "_read_row_group", lambda *at: groups.append(at[1]) or read(*at))
    write(tmp_path / "set/a.parquet", table(list(range(12))), row_group_size=4)
    batches = open_batches(
        seed=0,
        minibatches=1,
        data={
            "source": "hf",
            "path": str(tmp_path / "set"),
            "split": "train",
            "image_size": 8,
            "channels": 1,
            "crop": "none",
            "crop_fraction": 0.875,
            "resize_filter": "box",
            "max_megapixels": 178,
            "batch_size": 12,
            "placement": "host",
            "workers": 0,
            "cache_dir": str(tmp_path / "cache"),
        },
    )
    assert sorted(groups) == [0, 1, 2]
    assert sorted(batches.read(0)["image"][0, :, 0, 0, 0].tolist()) == list(range(12))


def test_columns_are_found_by_type_and_what_is_not_read_is_told(opened, tmp_path, caplog):
    features = {
        "photo": {"_type": "Image"},
        "sound": {"_type": "Audio"},
        "caption": {"dtype": "string", "_type": "Value"},
    }
    rows = table([1, 2], features=None).rename_columns(["photo", "n"])
    rows = rows.append_column("sound", rows.column("photo")).append_column("caption", pa.array(["a", "b"]))
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    write(tmp_path / "set/a.parquet", rows.replace_schema_metadata(metadata))
    source = opened()
    assert source.features.keys() == source[0].keys() == {"image"}
    assert source[1]["image"].max() == 2
    assert "set: not read: n, sound, caption (what is read: photo)" in caplog.text
    write(tmp_path / "set/a.parquet", table([3], features=None))  # without any metadata
    assert opened()[0]["image"].max() == 3


def test_of_several_images_the_one_of_that_name_is_read(opened, tmp_path):
    write(tmp_path / "set/a.parquet", table([1], other=pa.array([{"bytes": png(2), "path": None}], PICTURE)))
    assert opened()[0]["image"].max() == 1
    write(
        tmp_path / "set/a.parquet", parquet.read_table(tmp_path / "set/a.parquet").rename_columns(["a", "label", "b"])
    )
    with pytest.raises(UserError, match="several columns of images and none is named 'image': a, b"):
        opened()


def test_pictures_may_lie_beside_the_files(opened, tmp_path):
    pictures = pa.array([{"bytes": None, "path": "pictures/1.png"}, None], PICTURE)
    write(tmp_path / "set/a.parquet", table([0, 0]).set_column(0, "image", pictures))
    (tmp_path / "set/pictures").mkdir()
    (tmp_path / "set/pictures/1.png").write_bytes(png(77))
    assert opened()[0]["image"].max() == 77
    with pytest.raises(UserError, match=r"a.parquet \(example 1\) has no image"):
        opened()[1]


def test_colours_are_converted_and_pictures_of_any_mode_resized(opened, tmp_path):
    write(tmp_path / "set/a.parquet", table([50]))
    assert (opened(channels=3, image_size=4)[0]["image"] == np.full((4, 4, 3), 50)).all()


def test_what_cannot_be_read_is_named(opened, tmp_path):
    with pytest.raises(UserError, match=r"needs a folder of .parquet"):
        opened(path="")
    with pytest.raises(UserError, match=r"no folder or .parquet file .*/set"):
        opened()
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=r"no .parquet or .arrow files in .*set"):
        opened()
    for name, kind in (("a.parquet", "Parquet"), ("a.arrow", "Arrow")):
        (tmp_path / "set" / name).write_bytes(b"not such a file at all")
        with pytest.raises(UserError, match=f"cannot read .*{name} as {kind}"):
            opened(path=str(tmp_path / "set" / name))
    for changes, message in [
        ({"image": pa.array([1])}, "no column of images; its columns: image, label"),
        ({"label": pa.array([-1])}, r"example 0\) has the label -1, and the set's classes are 0 to 1"),
        ({"image": pa.array([{"bytes": b"GIF89a", "path": ""}], PICTURE)}, r"example 0\) \(6 bytes\)"),
    ]:
        features = {} if "no column" in message else FEATURES
        write(tmp_path / "set/one/a.parquet", table([1], features=features, **changes))
        with pytest.raises(UserError, match=message):
            opened(path=str(tmp_path / "set/one"))[0]


def test_without_pyarrow_it_says_what_to_install(opened, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(UserError, match=r'pip install -e "\.\[hf\]"'):
        opened()
