"""Data sets of Hugging Face on disk: written by pyarrow with the hub's metadata, read without the network."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from gormley_vision.data.batches import open_batches
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

FEATURES = {
    "photo": {"_type": "Image"},
    "kind": {"_type": "ClassLabel", "names": ["cat", "dog", "eel"]},
    "caption": {"_type": "Value", "dtype": "string"},
}


def png(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": f"{value}.png"}


def table(values, labels=None, features=FEATURES):
    columns = {"photo": pa.array([png(value) for value in values])}
    columns |= {"kind": pa.array(labels or [value % 3 for value in values], pa.int64())}
    columns |= {"caption": pa.array([f"no. {value}" for value in values])}
    made = pa.table(columns)
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(values), path, **options)


def write_arrow(path, values, writer=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = table(values)
    with (writer or pa.ipc.new_stream)(str(path), made.schema) as file:
        file.write_table(made)


@pytest.fixture
def opened(settings, tmp_path):
    def open_hf(**changes):
        found = {**settings, "source": "hf", "path": str(tmp_path / "set"), "channels": 1, "crop": "none"}
        return open_source(found | changes)

    return open_hf


def read(source):
    return [(int(example["image"][0, 0, 0]), int(example["label"])) for example in source]


def test_the_hubs_layout_is_read_in_the_order_of_names_over_row_groups(opened, tmp_path):
    write_parquet(tmp_path / "set/data/train-00001-of-00002.parquet", [5, 6])
    write_parquet(tmp_path / "set/data/train-00000-of-00002.parquet", range(5), row_group_size=2)
    write_parquet(tmp_path / "set/data/test-00000-of-00001.parquet", [9])
    source = opened()
    assert read(source) == [(value, value % 3) for value in range(7)]
    assert source.class_names == ("cat", "dog", "eel")
    assert source.labels.tolist() == [value % 3 for value in range(7)]
    assert source[3]["label"].dtype == np.int32
    assert [read(source)[i] for i in (6, 0, 4)] == [(6, 0), (0, 0), (4, 1)]
    assert read(opened(split="test")) == [(9, 0)]
    with pytest.raises(UserError, match=r"no split 'validation'; it has test, train: --config\.data\.split="):
        opened(split="validation")
    with pytest.raises(IndexError):
        source[7]


@pytest.mark.parametrize("writer", [None, pa.ipc.new_file], ids=["stream", "file"])
def test_what_save_to_disk_wrote_is_read_the_same_in_every_placement(opened, settings, tmp_path, writer):
    write_arrow(tmp_path / "set/train/data-00000-of-00001.arrow", range(20), writer)
    assert read(opened()) == [(value, value % 3) for value in range(20)]
    data = {**settings, "source": "hf", "path": str(tmp_path / "set"), "channels": 1, "batch_size": 4}
    batches = {}
    for placement in ("host", "stream"):
        made = open_batches(seed=1, minibatches=1, data=data | {"placement": placement}, needs={"label": "label"})
        batches[placement] = made.read(3)
    for name in ("image", "label"):
        np.testing.assert_array_equal(batches["host"][name], batches["stream"][name])


def test_without_the_hubs_metadata_a_column_of_bytes_is_the_image(opened, tmp_path, caplog):
    (tmp_path / "set").mkdir()
    pq.write_table(table([1, 2]).replace_schema_metadata({}), tmp_path / "set" / "x.parquet")
    source = opened()
    assert source.features.keys() == {"image"}
    assert [int(example["image"][0, 0, 0]) for example in source] == [1, 2]
    assert "not read: kind, caption (read: photo)" in caplog.text


def test_mistakes_are_named(opened, tmp_path):
    with pytest.raises(UserError, match=r"needs files: --config\.data\.path"):
        opened(path="")
    with pytest.raises(UserError, match="no file or folder"):
        opened()
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=r"no \.parquet or .arrow file in"):
        opened()
    (tmp_path / "set" / "x.parquet").write_bytes(b"PAR1 is not all of it")
    with pytest.raises(UserError, match=r"cannot read .*x\.parquet"):
        opened()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "set" / "x.parquet")
    with pytest.raises(UserError, match="no column of images; its columns: text"):
        opened()
    pq.write_table(table([1, 2], labels=[0, -1]), tmp_path / "set" / "x.parquet")
    with pytest.raises(UserError, match="the labels are -1 to 0"):
        opened()
