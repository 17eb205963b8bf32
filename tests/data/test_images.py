from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gormley_vision.data.decoding import decode_file
from gormley_vision.data.images import RESIZE_FILTERS, Conversion, from_array, to_uint8
from gormley_vision.errors import UserError

GOLDEN = np.load(Path(__file__).parent / "golden/resize_center.npz")


def convert(image, *, image_size=4, channels=3, crop="center", resize_filter="box", **options):
    settings = {"image_size": image_size, "channels": channels, "crop": crop, "resize_filter": resize_filter}
    return to_uint8(image, **settings | options)


def filled(mode, colour, size=(4, 4)):
    return Image.new(mode, size, colour)


def palette(transparency=None):
    image = filled("P", 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


MODES = {
    "grey": (filled("L", 77), (77, 77, 77)),
    "one_bit": (filled("1", 1), (255, 255, 255)),
    "rgb": (filled("RGB", (1, 2, 3)), (1, 2, 3)),
    "rgba_opaque": (filled("RGBA", (1, 2, 3, 255)), (1, 2, 3)),
    "rgba_clear": (filled("RGBA", (1, 2, 3, 0)), (255, 255, 255)),
    # 51 / 255 = 0.2 of the colour and 0.8 of white: 0.2 * 100 + 0.8 * 255 = 224.
    "rgba_part": (filled("RGBA", (100, 0, 255, 51)), (224, 204, 255)),
    "grey_alpha": (filled("LA", (100, 51)), (224, 224, 224)),
    "palette": (palette(), (10, 200, 30)),
    "palette_clear": (palette(transparency=1), (255, 255, 255)),
    "palette_other_clear": (palette(transparency=0), (10, 200, 30)),
    "cmyk": (filled("CMYK", (255, 0, 0, 0)), (0, 255, 255)),
    "grey_16": (Image.fromarray(np.full((4, 4), 300 * 100, np.uint16)), (117, 117, 117)),
    "grey_32_of_16": (filled("I", 65535), (255, 255, 255)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_rgb(name):
    image, colour = MODES[name]
    result = convert(image)
    assert result.dtype == np.uint8
    assert result.shape == (4, 4, 3)
    assert (result == colour).all()


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_grey(name):
    image, colour = MODES[name]
    result = convert(image, channels=1)
    assert result.shape == (4, 4, 1)
    # ITU-R 601 luma, to within Pillow's fixed-point rounding.
    assert abs(result.astype(float) - np.dot(colour, (0.299, 0.587, 0.114))).max() <= 0.51


@pytest.mark.parametrize("name", ["grey", "palette", "palette_clear", "rgba_part", "grey_alpha", "grey_16", "one_bit"])
def test_modes_survive_a_png_file(tmp_path, name):
    image, colour = MODES[name]
    image.save(tmp_path / "a.png", **{k: v for k, v in image.info.items() if k == "transparency"})
    assert (convert(decode_file(tmp_path / "a.png")) == colour).all()


def test_16_bit_grey_is_scaled_and_rounded_for_every_value():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    result = convert(Image.fromarray(values), image_size=256, channels=1)[..., 0]
    assert (result == np.round(values / 257)).all()


@pytest.mark.parametrize("image", [filled("F", 0.5), filled("I", 65536), filled("I", -1)])
def test_modes_without_a_range_are_refused(image):
    with pytest.raises(UserError, match="no fixed range"):
        convert(image)


def test_a_mode_that_pillow_does_not_convert_is_refused():
    with pytest.raises(UserError, match="no conversion of mode La to RGB"):
        convert(filled("La", (1, 2)))


def test_center_crop_takes_the_middle_square_and_none_squeezes():
    columns = np.tile(np.arange(12, dtype=np.uint8) * 20, (4, 1))
    image = from_array(columns)
    assert (convert(image, channels=1)[0, :, 0] == [80, 100, 120, 140]).all()
    # Box over three columns: the mean of each triple.
    assert (convert(image, channels=1, crop="none")[0, :, 0] == [20, 80, 140, 200]).all()
    assert (convert(from_array(columns.T), channels=1)[:, 0, 0] == [80, 100, 120, 140]).all()


def test_resize_center_is_torchvisions_to_the_pixel():
    start = 0
    for (height, width, size, kind), fraction in zip(GOLDEN["cases"], GOLDEN["fractions"], strict=True):
        image = from_array(GOLDEN["base"][:height, :width])
        resize_filter = str(GOLDEN["filters"][kind])
        settings = {"image_size": int(size), "crop": "resize_center", "resize_filter": resize_filter}
        found = convert(image, **settings, crop_fraction=float(fraction))
        expected = GOLDEN["expected"][start : start + found.size].reshape(found.shape)
        start += found.size
        assert (found == expected).all(), (height, width, size, resize_filter, fraction)
    assert start == GOLDEN["expected"].size


def test_resize_center_by_hand():
    # 4 / 0.5 = 8 for the shorter side: no resampling of 8 x 13. Offset (13 - 4) / 2 = 4.5, to even 4.
    columns = np.tile(np.arange(13, dtype=np.uint8), (8, 1))
    found = convert(from_array(columns), channels=1, crop="resize_center", crop_fraction=0.5)
    assert (found[..., 0] == [4, 5, 6, 7]).all()
    # 8 x 15: 5.5 goes to 6, where "center" floors.
    columns = np.tile(np.arange(15, dtype=np.uint8), (8, 1))
    found = convert(from_array(columns), channels=1, crop="resize_center", crop_fraction=0.5)
    assert (found[..., 0] == [6, 7, 8, 9]).all()
    assert (convert(from_array(columns[:4]), channels=1)[..., 0] == [5, 6, 7, 8]).all()


def test_the_crop_fraction_is_part_of_the_identity_of_resize_center_alone():
    old = {"image_size": 4, "channels": 3, "crop": "center", "resize_filter": "box"}
    for crop in ("center", "none"):
        assert Conversion(**old | {"crop": crop}, crop_fraction=0.5).identity == old | {"crop": crop}
    new = old | {"crop": "resize_center"}
    assert Conversion(**new).identity == new | {"crop_fraction": 0.875}
    assert Conversion(**new, crop_fraction=0.5).identity == new | {"crop_fraction": 0.5}


def test_a_sliver_that_resize_center_would_blow_up_is_refused():
    sliver = from_array(np.zeros((1, 50_000), np.uint8))
    settings = {"image_size": 224, "channels": 1, "resize_filter": "box"}
    message = r"50000 x 1 pixels becomes 12800000 x 256 .*3276 megapixels.*--config.data.max_megapixels=3276"
    with pytest.raises(UserError, match=message):
        Conversion(**settings, crop="resize_center")(sliver)
    assert Conversion(**settings, crop="center")(sliver).shape == (224, 224, 1)


@pytest.mark.parametrize("name", RESIZE_FILTERS)
def test_filters_average_when_they_shrink_and_leave_a_fitting_image_alone(name):
    checks = from_array((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    small = convert(checks, channels=1, resize_filter=name)
    assert abs(small.astype(int) - 128).max() < 12  # without antialiasing: 0 or 255
    same = convert(checks, image_size=64, channels=1, resize_filter=name)
    assert (same[..., 0] == np.asarray(checks)).all()


def test_filters_differ():
    noise = from_array(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8))
    results = {convert(noise, image_size=10, resize_filter=name).tobytes() for name in RESIZE_FILTERS}
    assert len(results) == len(RESIZE_FILTERS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": "centre"}, "did you mean 'center'.*--config.data.crop=center"),
        ({"resize_filter": "bicubik"}, "did you mean 'bicubic'.*--config.data.resize_filter=bicubic"),
        ({"resize_filter": "q"}, "not known. Choose one of bicubic, bilinear, box, hamming, lanczos"),
        ({"channels": 4}, "--config.data.channels=3"),
        ({"image_size": 0}, "--config.data.image_size"),
        ({"crop_fraction": 0.0}, "not between 0.01 and 1: --config.data.crop_fraction=0.875"),
        ({"crop_fraction": 1.1}, "--config.data.crop_fraction=0.875"),
        ({"crop_fraction": float("nan")}, "--config.data.crop_fraction=0.875"),
    ],
)
def test_unknown_settings_are_refused_with_what_to_type(changes, message):
    with pytest.raises(UserError, match=message):
        Conversion(**{"image_size": 4, "channels": 3, "crop": "center", "resize_filter": "box"} | changes)
