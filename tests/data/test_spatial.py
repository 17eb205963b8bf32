"""Crop and resize move label maps, boxes and points as they move the pixels: by hand, and against a white rectangle."""

import numpy as np
import pytest
from PIL import Image

from gormley_vision.data.features import Feature, check_features
from gormley_vision.data.images import Conversion
from gormley_vision.data.spatial import convert
from gormley_vision.errors import UserError


def features_of(size, boxes=4, points=3, channels=1):
    return {
        "image": Feature("image", (size, size, channels), "uint8"),
        "classes": Feature("label_map", (size, size), "uint8"),
        "boxes": Feature("boxes", (boxes, 4), "float32", mask="boxes_there"),
        "kinds": Feature("label", (boxes,), "int32", ("cat", "dog"), mask="boxes_there"),
        "boxes_there": Feature("mask", (boxes,), "bool"),
        "points": Feature("points", (points, 2), "float32", mask="points_there"),
        "points_there": Feature("mask", (points,), "bool"),
        "depth": Feature("vector", (2,), "float32"),
    }


def picture(width, height, **changes):
    """An example whose label map numbers the columns, and, times 16, the rows."""
    return {
        "image": np.zeros((height, width), np.uint8),
        "classes": np.arange(width) + 16 * np.arange(height)[:, None],
        "boxes": np.zeros((0, 4)),
        "kinds": [],
        "points": [],
        "depth": [1.5, 2.5],
    } | changes


def test_a_centre_crop_by_hand():
    # Of 12 x 4 pixels columns 4 to 7 are left, at half the size: x' = (x - 4) / 2, y' = y / 2.
    example = picture(
        12,
        4,
        boxes=[[4, 0, 8, 4], [0, 1, 6, 3], [9, 0, 12, 4]],  # all of the crop; half outside; outside
        kinds=[0, 1, 1],
        points=[[5, 1], [3, 1], [8, 4]],
    )
    found = convert(example, features_of(2), Conversion(2, 1, "center", "box"))
    assert found["boxes"].tolist() == [[0, 0, 2, 2], [0, 0.5, 1, 1.5], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found["boxes_there"].tolist() == [True, True, False, False]
    assert found["kinds"].tolist() == [0, 1, 1, 0]
    assert found["points"].tolist() == [[0.5, 0.5], [0, 0], [2, 2]]
    assert found["points_there"].tolist() == [True, False, True]
    # New pixel 0 has its centre at x = 4 + 1, the left edge of column 5; pixel 1 at 4 + 3. Rows 1 and 3.
    assert found["classes"].tolist() == [[5 + 16, 7 + 16], [5 + 48, 7 + 48]]
    assert found["depth"].tolist() == [1.5, 2.5]
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        name: (f.shape, f.dtype) for name, f in features_of(2).items()
    }


def test_a_squeeze_by_hand():
    # 12 x 4 to 2 x 2: x' = x / 6, y' = y / 2.
    found = convert(picture(12, 4, points=[[3, 1], [12, 4]]), features_of(2), Conversion(2, 1, "none", "box"))
    assert found["points"][:2].tolist() == [[0.5, 0.5], [2, 2]]
    assert found["points_there"].tolist() == [True, True, False]
    assert found["classes"].tolist() == [[3 + 16, 9 + 16], [3 + 48, 9 + 48]]  # centres at 3 and 9


def test_a_resize_and_centre_crop_by_hand():
    # 8 x 4 becomes 16 x 8, of which 4 x 4 are left from (6, 2) on: x' = 2 x - 6, y' = 2 y - 2.
    example = picture(8, 4, boxes=[[0, 0, 8, 4], [3, 1, 4, 2]], kinds=[0, 0], points=[[4, 2]])
    found = convert(example, features_of(4), Conversion(4, 1, "resize_center", "box", crop_fraction=0.5))
    assert found["boxes"][:2].tolist() == [[0, 0, 4, 4], [0, 0, 2, 2]]
    assert found["points"][0].tolist() == [2, 2]
    assert found["classes"][0].tolist() == [16 + column for column in (3, 3, 4, 4)]
    assert found["classes"][:, 0].tolist() == [3 + 16 * row for row in (1, 1, 2, 2)]


@pytest.mark.parametrize("crop", ["center", "none", "resize_center"])
@pytest.mark.parametrize(("width", "height"), [(61, 40), (40, 61), (48, 48)])
@pytest.mark.parametrize("size", [16, 37, 96])
def test_a_white_rectangle_is_where_its_box_is(crop, width, height, size):
    x0, y0, x1, y1 = 17, 15, 33, 29
    image = np.zeros((height, width), np.uint8)
    image[y0:y1, x0:x1] = 255
    example = picture(width, height, image=Image.fromarray(image), classes=image, boxes=[[x0, y0, x1, y1]], kinds=[0])
    found = convert(example, features_of(size), Conversion(size, 1, crop, "bilinear"))
    box = found["boxes"][0]
    for mass in (found["image"][..., 0] / 255, found["classes"] / 255):
        place = np.arange(size) + 0.5
        middle = np.array([(mass.sum(0) * place).sum(), (mass.sum(1) * place).sum()]) / mass.sum()
        np.testing.assert_allclose(middle, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], atol=0.51)
        np.testing.assert_allclose(mass.sum(0).max(), box[3] - box[1], atol=1.01)
        np.testing.assert_allclose(mass.sum(1).max(), box[2] - box[0], atol=1.01)


def test_a_mask_that_is_given_counts_and_an_image_has_its_features_channels():
    example = picture(4, 4, points=[[1, 1], [2, 2], [3, 3]], points_there=[True, False, True])
    found = convert(example, features_of(4, channels=3), Conversion(4, 1, "none", "box"))
    assert found["points_there"].tolist() == [True, False, True]
    assert found["points"].tolist() == [[1, 1], [0, 0], [3, 3]]
    assert found["image"].shape == (4, 4, 3)


def test_what_cannot_be_converted_is_named():
    conversion = Conversion(4, 1, "none", "box")
    with pytest.raises(UserError, match="image 4 x 4, classes 6 x 5"):
        convert(picture(4, 4, classes=np.zeros((5, 6))), features_of(4), conversion)
    with pytest.raises(UserError, match="'points' has 4 rows, but its feature has only 3"):
        convert(picture(4, 4, points=np.zeros((4, 2))), features_of(4), conversion)
    with pytest.raises(UserError, match=r"mask 'boxes_there' have \[1, 2\] rows"):
        convert(picture(4, 4, boxes=np.zeros((1, 4)), kinds=[0, 1]), features_of(4), conversion)
    with pytest.raises(ValueError, match="no picture"):
        convert({"points": []}, {"points": Feature("points", (3, 2), "float32")}, conversion)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mask": "missing"},
            r"'eyes' \(points float32 \[2, 2\]\) names 'missing' as its mask.*give it a mask bool \[2\]",
        ),
        ({"mask": "three"}, "names 'three' as its mask"),
        ({"mask": "boxes"}, "names 'boxes' as its mask"),
        ({"flip_pairs": ((0, 2),)}, "not rows of points"),
        ({"flip_pairs": ((0, 1),), "mask": "two"}, "'boxes' needs a mask of its own"),
    ],
)
def test_masks_and_pairs_that_do_not_fit_are_named(changes, message):
    features = {
        "eyes": Feature("points", (2, 2), "float32", **changes),
        "boxes": Feature("boxes", (2, 4), "float32", mask="two"),
        "two": Feature("mask", (2,), "bool"),
        "three": Feature("mask", (3,), "bool"),
    }
    with pytest.raises(UserError, match=message):
        check_features(features, {})
