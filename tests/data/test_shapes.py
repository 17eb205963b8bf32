"""Size and channels of images that are not decoded."""

import re

import numpy as np
import pytest
from PIL import Image

from gormley_vision.data.shapes import shape_of
from gormley_vision.errors import UserError


def pictures(folder, *modes, size=(6, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for i, mode in enumerate(modes):
        suffix = "tiff" if mode in ("F", "I") else "png"
        Image.new(mode, (size[0] + i, size[1])).save(folder / f"{i}.{suffix}")
    return folder


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_one_picture_in_colour_makes_a_set_of_colour(tmp_path, mode):
    assert shape_of(pictures(tmp_path, "1", "L", "LA", "I", "F", "I;16")) == (4, 6, 1)
    assert shape_of(pictures(tmp_path, "L", "L", "L", mode)) == (4, 6, 3)


def test_a_folder_is_all_of_its_pictures_and_a_split_those_below_it(tmp_path):
    pictures(tmp_path / "train", "L")
    pictures(tmp_path / "test", "RGB", size=(8, 7))
    assert shape_of(tmp_path) == (7, 8, 3)
    assert shape_of(tmp_path, "train") == shape_of(tmp_path, "train[:50%]") == (4, 6, 1)
    assert shape_of(tmp_path, "other") == (7, 8, 3)  # no subfolder: what the source says of it


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 5, 4, 1), (2, 5, 4, 3)])
def test_arrays(tmp_path, shape):
    np.savez(tmp_path / "x.npz", images=np.zeros(shape, np.uint8))
    assert shape_of(tmp_path / "x.npz") == (5, 4, shape[3] if len(shape) > 3 else 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent does not exist: pass a folder of pictures, or an .npz file"),
        ("x.npy", "x.npy is a file: pass a folder of pictures, or an .npz file"),
        ("empty", "empty has no images: pass a folder"),
        ("broken", "0.png cannot be read"),
        ("renamed.npz", "renamed.npz cannot be read"),
        ("empty.npz", "empty.npz cannot be read"),
        ("short.npz", "short.npz cannot be read"),
        ("other.npz", "'images is not a file in the archive'"),
        ("alpha.npz", "need [N, H, W], or [N, H, W, C] with 1 or 3 channels. Drop the alpha channel: images[..., :3]"),
        ("flat.npz", "images have shape (4,); need [N, H, W]"),
    ],
)
def test_what_is_no_set_of_images(tmp_path, name, message):
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 4)))
    (tmp_path / "renamed.npz").write_bytes((tmp_path / "x.npy").read_bytes())
    (tmp_path / "empty.npz").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.png").write_text("no picture")
    np.savez(tmp_path / "other.npz", pictures=np.zeros((2, 4, 4)))
    np.savez(tmp_path / "alpha.npz", images=np.zeros((2, 5, 4, 4), np.uint8))
    np.savez(tmp_path / "flat.npz", images=np.zeros(4, np.uint8))
    (tmp_path / "short.npz").write_bytes((tmp_path / "alpha.npz").read_bytes()[:300])
    with pytest.raises(UserError, match=re.escape(message)):
        shape_of(tmp_path / name)
