"""Pictures of a second folder beside those of the first: paired by name, cropped alike, refused if they do not fit."""

import numpy as np
import pytest
from PIL import Image

from gormley_vision.data.batches import open_batches
from gormley_vision.data.cache import load_examples
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError


def columns(width, height=4):
    """Column i has the value i."""
    return Image.fromarray(np.tile(np.arange(width, dtype=np.uint8), (height, 1)))


@pytest.fixture
def pair(settings, tmp_path):
    """Writes pictures by path below tmp_path, and opens tmp_path/photos with tmp_path/maps."""

    def open_pair(pictures, **changes):
        for name, picture in pictures.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        usual = {"source": "folder", "path": str(tmp_path / "photos"), "targets": str(tmp_path / "maps")}
        return open_source(settings | usual | {"channels": 1, "image_size": 4} | changes)

    return open_pair


def test_a_label_map_is_the_one_of_its_images_name_and_cropped_as_it(pair, tmp_path, caplog):
    source = pair(
        {
            "photos/b/1.jpg": columns(12),
            "photos/a/1.png": columns(12),
            "maps/a/1.png": columns(12),
            "maps/b/1.png": columns(12).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            "maps/b/2.png": columns(3),  # nobody's
        }
    )
    assert "maps: left out, since they belong to no image: b/2.png" in caplog.text
    assert (source.features["target"].kind, source.features["target"].shape) == ("label_map", (4, 4))
    assert source.features["target"].fill == 255
    assert [int(example["label"]) for example in source] == [0, 1]
    assert (source[0]["image"][..., 0] == [4, 5, 6, 7]).all()
    assert (source[0]["target"] == [4, 5, 6, 7]).all()
    assert (source[1]["target"] == [7, 6, 5, 4]).all()
    examples = load_examples(source, str(tmp_path / "cache"))
    assert examples.arrays["target"].shape == (2, 4, 4)


def test_a_map_of_a_palette_holds_its_numbers_and_is_never_blended(pair):
    palette = columns(9, 9).convert("P")
    palette.putpalette([7, 7, 7] * 9)
    source = pair({"photos/1.png": columns(9, 9), "maps/1.png": palette})
    # 9 pixels to 4: the centres 1.125, 3.375, 5.625 and 7.875 lie in columns 1, 3, 5 and 7.
    assert (source[0]["target"] == [1, 3, 5, 7]).all()


def test_a_picture_may_be_an_image_and_its_target_side_by_side(pair):
    pictures = {"photos/1.png": columns(8), "photos/2.png": columns(8, 8)}
    source = pair(pictures, targets="", side_by_side=True)
    assert source.features["target"] == source.features["image"]
    assert (source[0]["image"][..., 0] == [0, 1, 2, 3]).all()
    assert (source[0]["target"][..., 0] == [4, 5, 6, 7]).all()
    assert source[1]["target"].shape == (4, 4, 1)  # half of 8x8 is 4x8, cropped and resized like any picture
    with pytest.raises(UserError, match=r"3\.png is 7 pixels wide, so it is not two pictures .*side_by_side=false"):
        pair(pictures | {"photos/3.png": columns(7)}, targets="", side_by_side=True)[2]
    with pytest.raises(UserError, match=r"--config\.data\.targets=''"):
        pair(pictures, side_by_side=True)


def test_the_second_folder_may_hold_images_and_have_splits(pair, settings, tmp_path):
    pictures = {f"{folder}/test/1.png": columns(4) for folder in ("photos", "maps")} | {"maps/1.png": columns(7)}
    source = pair(pictures, split="test", target_kind="image", channels=3)
    assert source.features["target"] == source.features["image"]
    assert (source[0]["target"] == source[0]["image"]).all()
    data = settings | {"source": "folder", "path": str(tmp_path / "photos"), "targets": str(tmp_path / "maps")}
    data |= {"split": "test", "batch_size": 1}
    batches = open_batches(seed=0, minibatches=1, data=data, needs={"target": "label_map"})
    assert batches.read(0)["target"].dtype == np.uint8
    with pytest.raises(UserError, match=r"'target' of kind label_map .*offers image .*--config.data.targets=FOLDER"):
        open_batches(seed=0, minibatches=1, data=data | {"targets": ""}, needs={"target": "label_map"})


def test_classes_are_named_by_a_file(pair, tmp_path):
    pictures = {"photos/1.png": columns(4), "maps/1.png": columns(4)}
    assert pair(pictures).features["target"].class_names == ()
    (tmp_path / "maps/classes.txt").write_text("sky\ntree\n\nroad\n")
    named = pair(pictures)
    assert named.features["target"].class_names == ("sky", "tree", "road")
    assert named.identity != pair(pictures, target_kind="image").identity
    with pytest.raises(UserError, match=r"maps/1.png has the class 3, but classes.txt names 0 to 2"):
        named[0]
    void = np.where(np.asarray(columns(4)) == 3, 255, 1).astype(np.uint8)
    assert pair(pictures | {"maps/1.png": Image.fromarray(void)})[0]["target"][0].tolist() == [1, 1, 1, 255]


@pytest.mark.parametrize(
    ("pictures", "changes", "message"),
    [
        ({}, {"targets": "/no/such"}, r"no folder /no/such: set --config.data.targets=FOLDER"),
        ({"photos/2.png": columns(4)}, {}, r"1 of 2 images have no picture of their name in .*maps: 2.png"),
        ({"photos/1.jpg": columns(4)}, {}, r"several pictures of one name in data.path: 1"),
        ({"maps/1.bmp": columns(4)}, {}, r"several pictures of one name in .*maps: 1"),
        ({}, {"target_kind": "labels"}, r"data.target_kind='labels' is not known"),
    ],
)
def test_folders_that_do_not_fit_are_refused(pair, pictures, changes, message):
    with pytest.raises(UserError, match=message):
        pair({"photos/1.png": columns(4), "maps/1.png": columns(4)} | pictures, **changes)


def test_a_jpeg_is_no_label_map(pair):
    pictures = {"photos/1.png": columns(4), "maps/1.jpg": columns(4)}
    with pytest.raises(UserError, match=r"1.jpg is a JPEG file, .*--config.data.target_kind=image"):
        pair(pictures)
    assert pair(pictures, target_kind="image")[0]["target"].shape == (4, 4, 1)


def test_maps_that_do_not_fit_are_named_when_they_are_read(pair):
    for picture, message in [
        (columns(4).convert("RGB"), r"maps/1.png is not a label map: its pixels are RGB"),
        (Image.fromarray(np.full((4, 4), 300, np.uint16)), "maps/1.png is not a label map: its pixels are I;16"),
        (columns(5), r"photos/1.png: pictures .* differ in size: image 4 x 4, target 5 x 4"),
    ]:
        with pytest.raises(UserError, match=message):
            pair({"photos/1.png": columns(4), "maps/1.png": picture})[0]


def test_a_folder_alone_has_the_identity_that_it_had(pair):
    source = pair({"photos/1.png": columns(4)}, targets="")
    assert source.identity.keys() == {"source", "classes", "files", "decode"}
    paired = pair({"maps/1.png": columns(4)})
    assert [name for name, *_ in paired.identity["files"]] == ["1.png", "targets/1.png"]
