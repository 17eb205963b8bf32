import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gormley_vision.data import cache
from gormley_vision.data.cache import load_examples
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError
from gormley_vision.files import home_cache


class Source:
    """Counts its reads; `length` examples of 4x4 grey, labels 0, 1, 2, 0, ..."""

    class_names = ("a", "b", "c")

    def __init__(self, length=20, **identity):
        self.identity = {"length": length} | identity
        self.reads = 0
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.reads += 1
        return np.full((4, 4, 1), index % 256, np.uint8), index % 3


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_examples_are_what_the_source_gives_and_the_second_start_reads_no_example(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 8)
    source, calls = Source(), []
    first = load_examples(source, str(tmp_path), lambda done, total: calls.append((done, total)))
    assert calls == [(8, 20), (16, 20), (20, 20)]
    assert isinstance(first.images, np.memmap)
    assert not first.images.flags.writeable
    assert first.images.dtype == np.uint8
    assert first.images.shape == (20, 4, 4, 1)
    assert (first.images[:, 0, 0, 0] == np.arange(20)).all()
    assert first.labels.dtype == np.int32
    assert (first.labels == np.arange(20) % 3).all()
    assert first.class_names == ("a", "b", "c")

    again = Source()
    second = load_examples(again, str(tmp_path), calls.append)
    assert again.reads == 0
    assert second.sha256 == first.sha256
    assert second.class_names == first.class_names
    assert (second.images == first.images).all()
    assert (second.labels == first.labels).all()


def test_sha256_is_of_the_content_and_not_of_the_identity_or_the_chunks(tmp_path, monkeypatch):
    def sha256(source):
        return load_examples(source, str(tmp_path)).sha256

    first = sha256(Source())
    monkeypatch.setattr(cache, "CHUNK", 3)
    assert sha256(Source(other=1)) == first
    renamed, shorter, relabelled = Source(other=2), Source(19), Source(other=3)
    renamed.class_names = ("a", "b", "d")
    relabelled.__class__ = type("R", (Source,), {"__getitem__": lambda s, i: (Source.__getitem__(s, i)[0], 0)})
    assert len({first, sha256(renamed), sha256(shorter), sha256(relabelled)}) == 4


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "meta.json"])
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
    assert (second.images[:, 0, 0, 0] == np.arange(20)).all()


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
from gormley_vision.data.cache import load_examples
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError
from gormley_vision.files import home_cache
source = open_source(source="fake", name="", path="", split="train", image_size=16, channels=3, crop="none",
                     resize_filter="box")
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
    assert len(list((tmp_path / "x/gormley_vision/data").glob("*/images.npy"))) == 1


# A source that says when it is read, and reads slowly: 4,096 examples in two seconds or more.
SLOW = """
import sys, threading, time
from gormley_vision.data.array_sources import FakeSource
from gormley_vision.data.cache import load_examples
from gormley_vision.data.images import Conversion

class Slow(FakeSource):
    reads = 0
    def __getitem__(self, index):
        if Slow.reads == 0:
            print("reading", flush=True)
        Slow.reads += 1
        if index % 64 == 0:
            time.sleep(float(sys.argv[2]))
        return super().__getitem__(index)

examples = load_examples(Slow("train", Conversion(int(sys.argv[3]), 1, "none", "box")), sys.argv[1])
print(examples.sha256, Slow.reads, int(examples.images.sum()))
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
    # One decodes 4,096 examples (and the first twice, for the shape); the others wait, and say so.
    assert sorted(int(reads) for _, reads, _ in results) == [0, 0, 4097]
    assert sum("waiting for another process" in errors for _, errors in outputs) >= 1


def test_killed_writers_leave_nothing_that_the_next_start_trusts_or_keeps(tmp_path):
    victims = [start(SLOW, tmp_path, 0.05, size) for size in (4, 5)]
    for victim in victims:
        assert victim.stdout.readline() == "reading\n"
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("*.tmp/images.npy"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate()
    assert len(list(tmp_path.glob("*.tmp/images.npy"))) == 2
    assert not list(tmp_path.glob("*/meta.json"))

    sha256, reads, total = run(SLOW, tmp_path, 0, 4).split()[1:]
    assert int(reads) == 4097
    assert not list(tmp_path.glob("*.tmp"))  # its own, and the other victim's
    source = open_source(
        source="fake",
        name="",
        path="",
        split="train",
        image_size=4,
        channels=1,
        crop="none",
        resize_filter="box",
    )
    assert int(total) == sum(int(image.sum()) for image, _ in source)
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
    assert "4097" in output
