import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from types import MappingProxyType

import numpy as np
import pytest

from gormley_vision.data import cache
from gormley_vision.data.array_sources import FakeSource
from gormley_vision.data.cache import identity_sha256, load_examples
from gormley_vision.data.features import Feature
from gormley_vision.data.images import Conversion
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError
from gormley_vision.files import home_cache


class Source:
    """Counts its reads; `length` examples of 4x4 grey, labels 0, 1, 2, 0, ..."""

    features = MappingProxyType(
        {"image": Feature("image", (4, 4, 1), "uint8"), "label": Feature("label", (), "int32", ("a", "b", "c"))}
    )

    def __init__(self, length=20, **identity):
        self.identity = {"length": length} | identity
        self.reads = 0
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index >= self.length:
            raise IndexError(index)
        self.reads += 1
        return {"image": np.full((4, 4, 1), index % 256, np.uint8), "label": np.array(index % 3, np.int32)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_examples_are_what_the_source_gives_and_the_second_start_reads_no_example(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 8)
    source, calls = Source(), []
    first = load_examples(source, str(tmp_path), lambda done, total: calls.append((done, total)))
    assert calls == [(8, 20), (16, 20), (20, 20)]
    images, labels = first.arrays["image"], first.arrays["label"]
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert images.dtype == np.uint8
    assert images.shape == (20, 4, 4, 1)
    assert (images[:, 0, 0, 0] == np.arange(20)).all()
    assert labels.dtype == np.int32
    assert (labels == np.arange(20) % 3).all()
    assert first.features == Source.features

    again = Source()
    second = load_examples(again, str(tmp_path), calls.append)
    assert again.reads == 0
    assert second.sha256 == first.sha256
    assert second.features == first.features
    assert (second.arrays["image"] == images).all()
    assert (second.arrays["label"] == labels).all()


def test_any_features_are_cached_as_they_are(tmp_path, monkeypatch, everything):
    monkeypatch.setattr(cache, "CHUNK", 4)
    first, second = (load_examples(everything(), str(tmp_path)) for _ in range(2))
    for examples in (first, second):
        assert examples.features == everything.features
        assert {name: (a.shape, a.dtype.name) for name, a in examples.arrays.items()} == {
            name: ((10, *f.shape), f.dtype) for name, f in everything.features.items()
        }
        assert examples.arrays["boxes"][:, 1, 3].tolist() == [float(i + 2) for i in range(10)]
        assert examples.arrays["species"].tolist() == [1, 0] * 5
    assert names(next(tmp_path.glob("*/"))) == sorted(["meta.json", *(f"{name}.npy" for name in everything.features)])
    # The names, kinds and values of all count, and the chunks do not.
    renamed, blurred = everything(), everything()
    renamed.features = {"picture" if k == "photo" else k: f for k, f in everything.features.items()}
    blurred.features = {**everything.features, "depth": Feature("vector", (), "float32")}
    renamed.identity, blurred.identity = {"renamed": 1}, {"blurred": 1}
    monkeypatch.setattr(cache, "CHUNK", 1024)
    again = everything()
    again.identity = {"again": 1}
    assert load_examples(again, str(tmp_path)).sha256 == first.sha256 == second.sha256
    assert len({first.sha256, *(load_examples(s, str(tmp_path)).sha256 for s in (renamed, blurred))}) == 3


def noted_before_features(source):
    """The SHA-256 by which checkpoints of versions before features know a set of images, from its description."""
    images = np.stack([example["image"] for example in source])
    labels = np.array([example.get("label", -1) for example in source], "<i4")
    names = list(source.features["label"].class_names) if "label" in source.features else []
    header = json.dumps([len(images), *images.shape[1:], names]).encode()
    return hashlib.sha256(header + images.tobytes() + labels.tobytes()).hexdigest()


def test_sets_of_images_have_the_sums_that_older_checkpoints_noted(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(cache, "CHUNK", 7)

    class Unlabelled(Source):
        features = MappingProxyType({"image": Source.features["image"]})

        def __getitem__(self, index):
            return {"image": super().__getitem__(index)["image"]}

    for source in (Source(), Unlabelled(labelled=False)):
        assert load_examples(source, str(tmp_path)).sha256 == noted_before_features(source)
    fake = open_source(settings)  # whose sums are those of commit a1abf48, before features
    decoded = "34d1c951f65bb860ee0e4a2abf31b05d7e5de6e92b836d617ea3ff3da5159185"
    assert load_examples(fake, str(tmp_path)).sha256 == decoded
    assert identity_sha256(fake.identity) == "dc46da50722aff9a52d07468261cd99f858bc30e440172b9113458579744404a"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.array(0, np.int64)}, r"example 0 .*label \(int64 \[\]\); its features say .*label int32 \[\]"),
        ({"image": np.zeros((4, 5, 1), np.uint8)}, r"image \(uint8 \[4, 5, 1\]\).*image uint8 \[4, 4, 1\]"),
        ({"more": np.zeros(3)}, r"more \(float64 \[3\]\)"),
    ],
)
def test_examples_that_are_not_as_described_are_named(tmp_path, change, message):
    class Other(Source):
        def __getitem__(self, index):
            return super().__getitem__(index) | change

    with pytest.raises(UserError, match=message):
        load_examples(Other(), str(tmp_path))


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (
            {"label": "boxes"},
            r"'label' of kind boxes .*offers image \(image uint8 \[4, 4, 1\]\), label \(label int32 \[\]\)",
        ),
        ({"image": "image", "masks": "label_map"}, "'masks' of kind label_map .*--config.data.source="),
    ],
)
def test_a_feature_that_lacks_is_refused_before_decoding_and_from_the_cache(tmp_path, needs, message):
    source = Source()
    with pytest.raises(UserError, match=message) as error:
        load_examples(source, str(tmp_path), needs=needs)
    assert source.reads == 0
    assert "\n" not in str(error.value)
    load_examples(source, str(tmp_path), needs={"image": "image", "label": "label"})
    with pytest.raises(UserError, match=message):
        load_examples(Source(), str(tmp_path), needs=needs)


def test_sha256_is_of_the_content_and_not_of_the_identity_or_the_chunks(tmp_path, monkeypatch):
    def sha256(source):
        return load_examples(source, str(tmp_path)).sha256

    first = sha256(Source())
    monkeypatch.setattr(cache, "CHUNK", 3)
    assert sha256(Source(other=1)) == first
    renamed, shorter, relabelled = Source(other=2), Source(19), Source(other=3)
    renamed.features = {**Source.features, "label": Feature("label", (), "int32", ("a", "b", "d"))}
    zero = {"label": np.array(0, np.int32)}
    relabelled.__class__ = type("R", (Source,), {"__getitem__": lambda s, i: Source.__getitem__(s, i) | zero})
    assert len({first, sha256(renamed), sha256(shorter), sha256(relabelled)}) == 4


@pytest.mark.parametrize("file", ["image.npy", "label.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_damaged_cache_is_rebuilt_with_a_warning(tmp_path, caplog, file, damage):
    first = load_examples(Source(), str(tmp_path))
    (path,) = tmp_path.glob(f"*/{file}")
    path.unlink() if damage == "removed" else path.write_bytes(path.read_bytes()[:-1])
    source = Source()
    with caplog.at_level(logging.WARNING):
        second = load_examples(source, str(tmp_path))
    assert source.reads > 0
    assert [record.message for record in caplog.records if "will be rebuilt" in record.message]
    assert second.sha256 == first.sha256
    assert (second.arrays["image"][:, 0, 0, 0] == np.arange(20)).all()


def test_an_error_of_the_source_comes_as_it_is_and_leaves_no_cache(tmp_path):
    class Broken(Source):
        def __getitem__(self, index):
            if index == 13:
                raise UserError("set/13.png is truncated")
            return super().__getitem__(index)

    with pytest.raises(UserError, match=r"^set/13.png is truncated$"):
        load_examples(Broken(), str(tmp_path))
    assert [name for name in names(tmp_path) if not name.endswith(".lock")] == []


def test_a_cache_dir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=f"{folder}.*--config.data.cache_dir=FOLDER"):
            load_examples(Source(), str(folder))


def test_a_full_disk_is_named_and_cleaned_up(tmp_path):
    program = """
import resource, signal, sys
from gormley_vision.data.array_sources import FakeSource
from gormley_vision.data.cache import identity_sha256, load_examples
from gormley_vision.data.features import Feature
from gormley_vision.data.array_sources import FakeSource
from gormley_vision.data.images import Conversion
from gormley_vision.errors import UserError
source = FakeSource("train", Conversion(16, 3, "none", "box"))
# Past this size the kernel refuses to write, with an OSError as on a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    load_examples(source, sys.argv[1])
except UserError as error:
    print(error)
"""
    result = run(program, tmp_path)
    assert f"cannot write the data cache in {tmp_path}: File too large." in result
    assert "--config.data.cache_dir=FOLDER" in result
    assert all(name.endswith(".lock") for name in names(tmp_path))


def test_the_default_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert home_cache() == tmp_path / ".cache/gormley_vision"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    load_examples(Source(), "")
    assert len(list((tmp_path / "x/gormley_vision/data").glob("*/image.npy"))) == 1


# A source that says when it is read, and reads slowly: 4,096 examples in two seconds or more.
SLOW = """
import sys, threading, time
from gormley_vision.data.array_sources import FakeSource
from gormley_vision.data.cache import load_examples
from gormley_vision.data.images import Conversion

class Slow(FakeSource):
    reads = 0
    def __getitem__(self, index):
        if index == 0:  # by one of the threads
            print("reading", flush=True)
        Slow.reads += 1
        if index % 64 == 0:
            time.sleep(float(sys.argv[2]))
        return super().__getitem__(index)

examples = load_examples(Slow("train", Conversion(int(sys.argv[3]), 1, "none", "box")), sys.argv[1])
print(examples.sha256, Slow.reads, int(examples.arrays["image"].sum()))
"""


def start(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(program, *arguments):
    process = start(program, *arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


def test_racing_processes_decode_once_and_agree(tmp_path):
    processes = [start(SLOW, tmp_path, 0.02, 4) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    results = [output.split("\n")[-2].split() for output, _ in outputs]
    assert len({(sha256, total) for sha256, _, total in results}) == 1
    # One decodes 4,096 examples; the others wait, and say so.
    assert sorted(int(reads) for _, reads, _ in results) == [0, 0, 4096]
    assert sum("waiting for another process" in errors for _, errors in outputs) >= 1


def test_killed_writers_leave_nothing_that_the_next_start_trusts_or_keeps(tmp_path):
    victims = [start(SLOW, tmp_path, 0.05, size) for size in (4, 5)]
    for victim in victims:
        assert victim.stdout.readline() == "reading\n"
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("*.tmp/image.npy"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate()
    assert len(list(tmp_path.glob("*.tmp/image.npy"))) == 2
    assert not list(tmp_path.glob("*/meta.json"))

    sha256, reads, total = run(SLOW, tmp_path, 0, 4).split()[1:]
    assert int(reads) == 4096
    assert not list(tmp_path.glob("*.tmp"))  # its own, and the other victim's
    source = FakeSource("train", Conversion(4, 1, "none", "box"))
    assert int(total) == sum(int(example["image"].sum()) for example in source)
    meta = [json.loads(path.read_text()) for path in tmp_path.glob("*/meta.json")]
    assert [m["sha256"] for m in meta] == [sha256]


def test_a_living_writers_files_are_left_alone(tmp_path):
    writer = start(SLOW, tmp_path, 0.02, 4)
    assert writer.stdout.readline() == "reading\n"
    while not list(tmp_path.glob("*.tmp")):
        assert writer.poll() is None
        time.sleep(0.01)
    load_examples(Source(), str(tmp_path))
    output, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, errors
    assert "4096" in output


def test_what_is_decoded_at_a_time_is_bounded_in_bytes(tmp_path, monkeypatch):
    """Of 16 bytes of image and 4 of label, 100 bytes are 5 examples; one is decoded whatever its size."""
    for most, counts in ((100, [5, 10, 12]), (1, list(range(1, 13)))):
        monkeypatch.setattr(cache, "CHUNK_BYTES", most)
        decoded = []
        load_examples(Source(12), str(tmp_path / str(most)), lambda done, _, decoded=decoded: decoded.append(done))
        assert decoded == counts
