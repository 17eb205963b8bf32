"""A TFDS set of real digits, prepared in the test: array_record with encoded images needs no TensorFlow."""

import dataclasses
import io
import re
import shutil
import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorboardX.record_writer import RecordWriter

from gormley_vision.data.images import Conversion
from gormley_vision.data.sources import open_source
from gormley_vision.data.tfrecord import convert_to_array_record
from gormley_vision.errors import UserError
from gormley_vision.experiment import overlap

ROOT = Path(__file__).parents[2]


def encoded(pixels, form="png"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    buffer.seek(0)
    return buffer


@pytest.fixture(scope="module")
def digits():
    """36 real digits, four a class: uint8 [36, 28, 28] and labels [36]."""
    conversion = Conversion(28, 1, "none", "box")
    source = open_source({"source": "mnist_5k", "split": "train", **dataclasses.asdict(conversion)})
    chosen = [source[500 * label + i] for label in range(9) for i in range(4)]
    return np.stack([one["image"][..., 0] for one in chosen]), np.array([one["label"] for one in chosen])


def prepare(data_dir, set_name, features, examples, disable_shuffling=False):
    """Writes a set with the splits that `examples` has, by TFDS's own builder."""

    class Set(tfds.core.GeneratorBasedBuilder):
        name = set_name
        VERSION = tfds.core.Version("1.0.0")
        # Else TFDS looks for checksum files beside this module, with importlib_resources, which 4.9.10
        # imports but does not depend on.
        code_path = None

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=disable_shuffling
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in examples.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    try:
        Set(data_dir=data_dir, file_format="array_record").download_and_prepare()
    finally:
        tfds.core.registered._DATASET_REGISTRY.pop(set_name, None)
    return data_dir / set_name / "1.0.0"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, digits):
    """A data directory with the sets `few_digits` (train 30, test 6), and ones of odd features."""
    folder = tmp_path_factory.mktemp("tfds")
    images, labels = digits
    grey, classes = tfds.features.Image(shape=(28, 28, 1)), tfds.features.ClassLabel(num_classes=10)
    rows = [{"image": encoded(x), "label": int(y)} for x, y in zip(images, labels, strict=True)]
    prepare(folder, "few_digits", {"image": grey, "label": classes}, {"train": rows[:30], "test": rows[30:]})
    numbers = {"x": tfds.features.Tensor(shape=(2,), dtype=np.float32)}
    prepare(folder, "numbers", numbers, {"train": [{"x": np.zeros(2, np.float32)}]})
    pair = {"left": tfds.features.Image(), "right": tfds.features.Image()}
    prepare(folder, "pairs", pair, {"train": [{"left": encoded(images[0]), "right": encoded(images[1])}]})
    mixed = [
        encoded(np.stack([images[0]] * 3, -1)),
        encoded(images[1]),
        encoded(np.zeros((9, 8, 4), np.uint8)),
    ]
    prepare(
        folder,
        "photos",
        {"photo": tfds.features.Image(shape=(None, None, None))},
        {"train": [{"photo": image} for image in mixed]},
    )
    again = [{"image": encoded(x), "label": int(y)} for x, y in zip(images, labels, strict=True)]  # TFDS read the files
    prepare(folder, "sorted_digits", {"image": grey, "label": classes}, {"train": again}, disable_shuffling=True)
    large = {"photo": tfds.features.Image(shape=(None, None, 1))}
    prepare(folder, "large", large, {"train": [{"photo": encoded(np.zeros((1500, 2000), np.uint8))}]})
    return folder


@pytest.fixture
def opened(settings, data_dir, monkeypatch):
    """Opens a set of `data_dir`, where any use of the network is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    usual = {"source": "tfds", "name": "few_digits", "path": str(data_dir), "image_size": 28, "channels": 1}
    return lambda **changes: open_source(settings | usual | changes)


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_come_back_bit_by_bit(opened, digits, split):
    source = opened(split=split)
    images, labels = (array[:30] if split == "train" else array[30:] for array in digits)
    assert len(source) == len(images)
    assert source.class_names == tuple("0123456789")
    # TFDS shuffles when it writes.
    written = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    read = [source[i] for i in range(len(source))]
    assert {one["image"].tobytes(): int(one["label"]) for one in read} == written
    assert all(one["image"].shape == (28, 28, 1) and one["image"].dtype == np.uint8 for one in read)


def test_a_part_of_a_split_and_a_version_can_be_named(opened):
    whole, part = opened(), opened(split="train[10:20]", name="few_digits:1.0.0")
    assert len(part) == 10
    assert (part[3]["image"] == whole[13]["image"]).all()
    assert part.identity != whole.identity


@pytest.mark.parametrize("name", ["few_digits", "sorted_digits"])
@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("train[:50%]", "train[50%:]", False),
        ("train[:50%]", "train[40%:60%]", True),
        ("train[:1]", "train", True),
        ("train[4:]", "train[:5]", True),
        ("train[5:]", "train[:5]", False),
    ],
)
def test_parts_overlap_where_they_share_examples(opened, name, first, second, shared):
    a, b = (
        (split, types.SimpleNamespace(sha256=split, identity=opened(name=name, split=split).identity))
        for split in (first, second)
    )
    assert overlap(a, b) == overlap(b, a) == shared


def test_sums_of_splits_overlap_where_they_share_examples(opened):
    sides = {
        split: types.SimpleNamespace(sha256=split, identity=opened(split=split).identity)
        for split in ("train[:50%]+test", "test", "train[50%:]", "train")
    }
    first = ("train[:50%]+test", sides.pop("train[:50%]+test"))
    assert [overlap(first, second) for second in sides.items()] == [True, False, True]


def test_a_set_that_tfds_did_not_shuffle_is_sliced_in_a_shuffled_order(opened, digits):
    whole = [int(one["label"]) for one in opened(name="sorted_digits")]
    assert whole == sorted(digits[1].tolist())
    sides = [opened(name="sorted_digits", split=split) for split in ("train[:75%]", "train[75%:]")]
    read = [[int(one["label"]) for one in side] for side in sides]
    assert [len(side) for side in read] == [27, 9]
    assert sorted(read[0] + read[1]) == whole
    assert len(set(read[1])) > 4  # as it lies, the last quarter holds three of nine classes
    assert sides[0].identity["part"] == [0, 27]
    for split in ("train[:50%]+train", "train+train[:50%]", "train[:1shard]", "test[:5]"):
        with pytest.raises(UserError, match=r"a part is written|no split|part of a sum"):
            opened(name="sorted_digits", split=split)


def test_images_are_found_by_type_and_converted_and_labels_may_lack(opened):
    source = opened(name="photos", image_size=8, channels=3)
    assert source.class_names == ()
    assert source.features.keys() == {"image"}
    assert [{name: array.shape for name, array in one.items()} for one in source] == [{"image": (8, 8, 3)}] * 3
    assert sum(bool((source[i]["image"] == 255).all()) for i in range(3)) == 1  # the transparent one, on white


def test_the_largest_picture_is_a_setting(opened):
    with pytest.raises(UserError, match=r"large.* example 0 has 2000 x 1500 pixels.*--config.data.max_megapixels=3"):
        opened(name="large", max_megapixels=2)[0]
    assert opened(name="large", max_megapixels=3)[0]["image"].max() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "--config.data.name=cifar10"),
        (
            {"name": "few_digit"},
            r"'few_digit' is not prepared.*There is 'few_digits': --config.data.name=few_digits",
        ),
        ({"name": "few_digits:2.0.0"}, "'few_digits:2.0.0' is not prepared"),
        ({"name": "few digits"}, "'few digits' is not prepared"),
        ({"name": "numbers"}, "no image feature; its features: x"),
        ({"name": "pairs"}, "several image features.*left, right"),
        ({"channels": 3}, r"images are grey.*--config\.data\.channels=1"),
        ({"split": "validation"}, r"no split 'validation'; it has test, train: --config\.data\.split=train"),
        ({"split": "train["}, "no split"),
        ({"split": "train[:0]"}, "has no examples"),
    ],
)
def test_mistakes_are_named_with_what_to_type(opened, changes, message):
    with pytest.raises(UserError, match=re.compile(message, re.DOTALL)):
        opened(**changes)


def test_a_set_that_is_not_prepared_says_how_to_prepare_it_and_what_runs_without(opened, tmp_path):
    with pytest.raises(UserError) as error:
        opened(name="cifar10", path=str(tmp_path / "none"))
    message = str(error.value)
    assert f"'cifar10' is not prepared in {tmp_path}/none" in message
    assert f"python scripts/prepare_data.py cifar10 --data_dir={tmp_path}/none" in message
    assert "--config=configs/dcgan_mnist.py" in message
    assert not (tmp_path / "none").exists()


def test_the_default_directory_is_that_of_tfds(settings, tmp_path):
    settings = settings | {"source": "tfds", "name": "few_digits"}
    program = f"from gormley_vision.data.sources import open_source; open_source({settings!r})"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"TFDS_DATA_DIR": str(tmp_path), "HOME": "/nowhere", "PYTHONPATH": str(ROOT)},
    )
    assert f"'few_digits' is not prepared in {tmp_path}." in result.stderr


def as_tfrecord(version_dir, data_dir):
    """A copy of a prepared array_record set in the form that TFDS writes by default, tfrecord."""
    copy = data_dir / version_dir.parent.name / version_dir.name
    copy.mkdir(parents=True)
    for file in version_dir.iterdir():
        if ".array_record-" in file.name:
            writer = RecordWriter(str(copy / file.name.replace("array_record", "tfrecord")))
            reader = array_record_module.ArrayRecordReader(str(file))
            for record in reader.read_all():
                writer.write(record)
            reader.close()
            writer.close()
        else:
            text = file.read_text().replace('"fileFormat": "array_record"', '"fileFormat": "tfrecord"')
            (copy / file.name).write_text(text)
    return copy


def test_tfrecord_is_refused_with_the_command_that_converts_it_in_place(opened, data_dir, tmp_path):
    folder = as_tfrecord(data_dir / "few_digits/1.0.0", tmp_path)
    with pytest.raises(UserError) as error:
        opened(path=str(tmp_path))
    assert f"is prepared in {folder} as tfrecord" in str(error.value)
    command = f"python scripts/prepare_data.py few_digits --data_dir={tmp_path}"
    assert command in str(error.value)
    result = subprocess.run(
        [sys.executable, *command.split()[1:]],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert f"prepared: {folder}" in result.stdout
    source, original = opened(path=str(tmp_path)), opened()
    assert len(source) == len(original) == 30
    assert all((a[name] == b[name]).all() for a, b in zip(source, original, strict=True) for name in ("image", "label"))
    assert len(opened(path=str(tmp_path), split="test")) == 6


@pytest.mark.parametrize("damage", ["cut", "short", "missing"])
def test_a_broken_tfrecord_is_named_and_not_announced_as_converted(opened, data_dir, tmp_path, damage):
    folder = as_tfrecord(data_dir / "few_digits/1.0.0", tmp_path)
    shard = folder / "few_digits-train.tfrecord-00000-of-00001"
    content = shard.read_bytes()
    first = 16 + int.from_bytes(content[:8], "little")
    shard.write_bytes({"cut": content[:-5], "short": content[first:], "missing": b""}[damage])
    if damage == "missing":
        shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        convert_to_array_record(folder)
    with pytest.raises(UserError, match="as tfrecord"):
        opened(path=str(tmp_path))


def test_a_missing_shard_is_named(opened, data_dir, tmp_path):
    folder = tmp_path / "few_digits/1.0.0"
    shutil.copytree(data_dir / "few_digits/1.0.0", folder)
    (folder / "few_digits-train.array_record-00000-of-00001").unlink()
    with pytest.raises(UserError, match=r"is incomplete: .*few_digits-train"):
        opened(path=str(tmp_path))
