"""Which files of a folder are read, in which order, and what is said of the others."""

import logging
import os

import pytest
from PIL import Image

from gormley_vision.data.folder_listing import image_suffixes, list_folder
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError


@pytest.fixture
def folder(settings, tmp_path):
    """Opens tmp_path/photos as a folder source, with changes to the settings."""

    def open_folder(**changes):
        return open_source(settings | {"source": "folder", "path": str(tmp_path / "photos")} | changes)

    return open_folder


@pytest.fixture
def write(tmp_path):
    """Writes 8x8 pictures of one grey value each below tmp_path/photos, in the format of their suffix."""

    def write_images(values):
        for name, value in values.items():
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (value, value, value)).save(path)
        return tmp_path / "photos"

    return write_images


def test_suffixes_are_those_that_pillow_decodes_by_itself():
    known = image_suffixes()
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jfif", ".gif", ".jp2", ".mpo"} <= known
    assert not {".bufr", ".grib", ".h5", ".hdf", ".wmf", ".emf", ".eps", ".ps", ".mpg", ".mpeg", ".pdf"} & known


@pytest.mark.parametrize(
    "suffix", ["bmp", "tif", "tiff", "gif", "ppm", "tga", "pcx", "PNG", "jfif", "jp2", "avif", "ico"]
)
def test_each_kind_of_file_is_read(folder, write, suffix):
    if f".{suffix.lower()}" not in image_suffixes():
        pytest.skip("this Pillow was built without it")
    write({f"a/1.{suffix}": 100, f"a/deep/er/2.{suffix}": 200})
    images = [example["image"] for example in folder()]
    assert [round(float(image.mean()) / 100) for image in images] == [1, 2]


def test_any_depth_is_read_and_the_first_level_names_the_class(folder, write):
    write({"b/z/2.png": 5, "b/10.png": 3, "b/z.png": 7, "b/z/1/0.png": 4, "a/x/y.bmp": 1, "a/x-1/y.png": 2})
    source = folder()
    assert source.class_names == ("a", "b")
    # Sorted part by part: "x" before "x-1", though "x-1/" < "x/" as text; "z" is a folder, "z.png" comes after it.
    assert [file for file, *_ in source.identity["files"]] == [
        "a/x/y.bmp", "a/x-1/y.png", "b/10.png", "b/z/1/0.png", "b/z/2.png", "b/z.png",
    ]  # fmt: skip
    read = [(int(example["image"][0, 0, 0]), int(example["label"])) for example in source]
    assert read == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (7, 1)]


def test_the_identity_of_an_old_folder_is_what_it_was(folder, write):
    root = write({"b/2.png": 1, "b/10.jpg": 1, "a/x.webp": 1})
    (root / "a/notes.txt").write_text("no image")
    stats = {name: (root / name).stat() for name in ("a/x.webp", "b/10.jpg", "b/2.png")}
    assert folder().identity == {
        "source": "folder",
        "classes": ("a", "b"),
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()],
        "decode": {"image_size": 8, "channels": 3, "crop": "center", "resize_filter": "box"},
    }


def test_what_is_left_out_is_counted_in_one_line_and_hidden_and_system_files_are_not(folder, write, caplog):
    root = write({"cat/1.png": 1, "dog/deep/2.png": 2, "dog/@eaDir/thumbnail.png": 3})
    for name in ("cat/a.txt", "dog/deep/b.TXT", "dog/c.mov", "README", "cat/.hidden", "cat/._1.png", ".DS_Store",
                 "cat/Thumbs.db", "dog/deep/Desktop.ini"):  # fmt: skip
        (root / name).write_text("no image")
    with caplog.at_level(logging.WARNING, logger="gormley_vision"):
        assert len(folder()) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}: left out 4 files that are not images: 2 .txt, 1 without a suffix, 1 .mov"
    ]
    caplog.clear()
    for name in ("cat/a.txt", "dog/deep/b.TXT", "dog/c.mov"):
        (root / name).unlink()
    folder()
    assert "left out 1 file that is not an image: 1 without a suffix" in caplog.text
    caplog.clear()
    (root / "README").unlink()
    folder()
    assert not caplog.records


def test_linked_folders_are_read_and_loops_end(write, tmp_path):
    root = write({"a/1.png": 1, "b/2.png": 2})
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (root / "a/1.png").rename(tmp_path / "elsewhere/deep/3.png")
    (root / "a/link").symlink_to(tmp_path / "elsewhere")
    (root / "a/up").symlink_to(root)
    (root / "a/out").symlink_to(tmp_path)
    (root / "b/self").symlink_to(root / "b")
    (tmp_path / "elsewhere/back").symlink_to(root / "b")  # b below a is new to that branch, and is read there
    listing = list_folder(root)
    assert listing.by_class == {"a": ["link/back/2.png", "link/deep/3.png"], "b": ["2.png"]}
    (root / "c").symlink_to(tmp_path)
    assert list(list_folder(root).by_class) == ["a", "b"]


def test_a_folder_of_other_files_says_which(folder, tmp_path):
    (tmp_path / "photos/a").mkdir(parents=True)
    (tmp_path / "photos/a/1.heic").write_bytes(b"apple")
    with pytest.raises(UserError, match=r"no images in .*Its subfolders are: a. Read, but left out 1 .*: 1 \.heic"):
        folder()


def test_a_listed_file_that_is_no_image_is_an_error_that_names_it(folder, write):
    root = write({"a/1.png": 1})
    (root / "a/deep").mkdir()
    (root / "a/deep/2.tif").write_bytes(b"II*\0 not a picture")
    with pytest.raises(UserError, match=r"a/deep/2\.tif"):
        folder()[1]


def test_the_largest_picture_is_a_setting_that_leaves_the_identity_alone(folder, write):
    root = write({"a/1.png": 1})
    Image.new("1", (1_500, 2_000)).save(root / "a/2.png")
    with pytest.raises(UserError, match=r"a/2\.png has 1500 x 2000 pixels.*--config.data.max_megapixels=3"):
        folder(max_megapixels=2)[1]
    assert folder(max_megapixels=3)[1]["image"].max() == 0
    assert folder(max_megapixels=2).identity == folder().identity
    with pytest.raises(UserError, match=r"--config\.data\.max_megapixels=178"):
        folder(max_megapixels=0)


def test_folders_of_splits_are_not_taken_for_classes_unless_told(folder, write):
    write({"training/cat/1.png": 1, "validation/cat/2.png": 2})
    with pytest.raises(UserError, match=r"training, validation look like splits: --config.data.split=training"):
        folder()
    assert folder(split="").class_names == ("training", "validation")
    assert folder(split="validation").class_names == ("cat",)


def test_a_folder_that_cannot_be_read_is_named(write, monkeypatch):
    root = write({"a/1.png": 1, "a/closed/2.png": 2})
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"cannot read the folder .*a/closed: Permission denied"):
        list_folder(root)


def test_a_pipe_is_named_before_it_is_waited_for(tmp_path):
    (tmp_path / "cat").mkdir()
    os.mkfifo(tmp_path / "cat" / "f.png")
    with pytest.raises(UserError, match=r"cat/f\.png is a pipe, a socket or a device"):
        list_folder(tmp_path)
