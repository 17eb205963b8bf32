import gzip
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gormley_vision.data.cache import load_examples
from gormley_vision.data.idx import CLASS_NAMES, read_idx
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "prepare_data.py"
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10_jpeg.tar.xz"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("prepare_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_idx(path, array):
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def open_npz(settings, path, **changes):
    usual = {"source": "npz", "path": str(path), "image_size": 28, "channels": 1}
    return open_source(settings | usual | changes)


def test_idx_files_become_a_folder_that_the_npz_source_reads(script, settings, tmp_path, capsys):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (12, 28, 28)), np.arange(12) % 10
    for prefix, part, suffix in (("train", slice(0, 10), ".gz"), ("t10k", slice(10, 12), "")):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", images[part])
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", labels[part])
    out = tmp_path / "made" / "here"
    script.main(["fashion_mnist", f"--idx={tmp_path}", f"--out={out}"])
    assert f"--config.data.source=npz --config.data.path={out}" in capsys.readouterr().out
    train, test = open_npz(settings, out), open_npz(settings, out, split="test")
    assert train.class_names == test.class_names == CLASS_NAMES["fashion_mnist"]
    read = [*train, *test]
    assert (np.stack([one["image"][..., 0] for one in read]) == images).all()
    assert [int(one["label"]) for one in read] == labels.tolist()


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"PK" + d[2:], lambda d: d[:2]])
def test_broken_idx_files_are_named(tmp_path, damage):
    path = tmp_path / "a-idx1-ubyte"
    write_idx(path, np.arange(5))
    assert read_idx(path).tolist() == [0, 1, 2, 3, 4]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="a-idx1-ubyte"):
        read_idx(path)
    packed = tmp_path / "b.gz"
    packed.write_bytes(gzip.compress(b"\0\0\x08\1\0\0\0\1a")[:-9])
    with pytest.raises(UserError, match=r"cannot read .*b\.gz"):
        read_idx(packed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar1"], "did you mean 'cifar10'? python scripts/prepare_data.py cifar10"),
        (["fashion_mnist", "--idx=DIR"], "--idx and --out must be given together"),
        (
            ["fashion_mnist", "--idx=DIR", "--out=a.npz"],
            "--out is a folder, for train.npz and test.npz: --out=a",
        ),
        (["fashion_mnist", "--idx=DIR", "--out=a"], "no train-images-idx3-ubyte.gz"),
        (["cifar10", "--idx=DIR", "--out=a"], "--idx reads mnist or fashion_mnist, not 'cifar10'"),
    ],
)
def test_mistakes_say_what_to_type(script, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()
    with pytest.raises(UserError, match=re.escape(message)):
        script.main(arguments)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "ModuleNotFoundError('In <Image>: No module named \\'tensorflow\\'')",
            'needs the package tensorflow: pip install -e ".[prepare]"',
        ),
        ("requests.exceptions.ConnectionError('no route')", "cannot download cifar10: no route"),
        ("AssertionError('download it by hand')", "TFDS cannot prepare cifar10: download it by hand"),
    ],
)
def test_what_tfds_raises_becomes_a_message(tmp_path, fault, message):
    program = f"""
import runpy, sys, requests
import tensorflow_datasets as tfds
def broken(self, **kwargs):
    raise {fault}
tfds.core.DatasetBuilder.download_and_prepare = broken
sys.argv = ["prepare_data.py", "cifar10", "--data_dir={tmp_path}"]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_real_fashion_mnist(script, settings, tmp_path):
    if not FASHION_MNIST.is_dir():
        pytest.skip(f"no {FASHION_MNIST}: apt-get install dataset-fashion-mnist")
    script.main(["fashion_mnist", f"--idx={FASHION_MNIST}", f"--out={tmp_path}"])
    test = open_npz(settings, tmp_path, split="test")
    assert len(test) == 10_000
    labels = [int(one["label"]) for one in test]
    assert np.bincount(labels).tolist() == [1000] * 10
    assert [test.class_names[label] for label in labels[:3]] == ["Ankle boot", "Pullover", "Trouser"]
    assert len(open_npz(settings, tmp_path)) == 60_000


def test_real_cifar10_jpeg_folder(settings, tmp_path):
    if not CIFAR10.is_file():
        pytest.skip(f"no {CIFAR10}")
    with tarfile.open(CIFAR10) as archive:
        for _ in range(600):
            member = archive.next()
            archive.extract(member, tmp_path, filter="data")
    (split,) = (path.name for path in (tmp_path / "cifar10").iterdir())
    photos = settings | {"source": "folder", "path": str(tmp_path / "cifar10"), "split": split}
    source = open_source(photos | {"image_size": 32})
    files = sorted((tmp_path / "cifar10" / split).glob("*/*.jpg"))
    assert len(source) == len(files) > 500
    assert source.class_names == tuple(sorted({file.parent.name for file in files}))
    examples = load_examples(source, str(tmp_path / "cache")).arrays
    assert examples["image"].shape == (len(files), 32, 32, 3)
    assert [source.class_names[label] for label in examples["label"]] == [file.parent.name for file in files]
    # Photographs: neighbouring pixels are alike, and images differ from each other.
    images = examples["image"].astype(float)
    assert np.corrcoef(images[:, :, 1:].ravel(), images[:, :, :-1].ravel())[0, 1] > 0.9
    assert images.mean(axis=(1, 2, 3)).std() > 20
    assert open_source(photos | {"image_size": 16, "channels": 1})[0]["image"].shape == (16, 16, 1)
