"""Pixels of files whose metadata or pixels are odd, cut short or broken."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps, PngImagePlugin

from gormley_vision.data.decoding import decode_bytes, decode_file
from gormley_vision.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8)


def saved(form, pixels=NOISE, **options):
    """The bytes of a picture in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data):
    return np.asarray(decode_bytes(data, name="a/b.jpg"))


def exif(**tags):
    """EXIF bytes as little-endian TIFF, one SHORT or ASCII value of at most four bytes a tag."""
    entries = b""
    for tag, value in sorted((int(name[1:], 16), value) for name, value in tags.items()):
        kind, raw = (3, struct.pack("<H", value)) if isinstance(value, int) else (2, value)
        count = 1 if kind == 3 else len(raw)
        entries += struct.pack("<HHI4s", tag, kind, count, raw.ljust(4, b"\0"))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def chunk(kind, content, right_sum=True):
    """One PNG chunk."""
    total = zlib.crc32(kind + content) ^ (0 if right_sum else 1)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", total)


def with_chunk(png, new, before=b"IDAT"):
    """A PNG file with a chunk put in before another."""
    at = png.index(before) - 4
    return png[:at] + new + png[at:]


def with_segment(jpeg, marker, content):
    """A JPEG file with an APPn segment put in front."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
def test_every_orientation_is_turned_as_pillow_turns_it(form, orientation):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    data = saved(form, exif=tags)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    assert (decoded(data) == expected).all()


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_text_where_exif_needs_a_number_does_not_matter(form):
    # 0x011A, XResolution, a RATIONAL by the standard: exif_transpose cannot write its text again.
    data = saved(form, exif=exif(x0112=6, x011A=b"odd"))
    with Image.open(io.BytesIO(data)) as image:
        plain = np.asarray(image.convert("RGB"))
    assert (decoded(data) == np.rot90(plain, -1)).all()


@pytest.mark.parametrize("tags", [{"x0112": b"six"}, {"x0112": 0}, {"x0112": 9}, {"x0112": 60000}])
def test_an_odd_orientation_means_upright(tags):
    assert (decoded(saved("png", exif=exif(**tags))) == NOISE).all()


@pytest.mark.parametrize(
    "raw", [b"", b"Exif\0\0", b"Exif\0\0garbage that is no TIFF", b"Exif\0\0II*\0\xff\xff\xff\x7f"]
)
@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_broken_exif_means_upright(form, raw):
    plain = np.asarray(Image.open(io.BytesIO(saved(form))).convert("RGB"))
    assert (decoded(saved(form, exif=raw)) == plain).all()


BAD_CHUNKS = {
    "sum": chunk(b"tEXt", b"Comment\0text", right_sum=False),
    "text_too_large": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))),
    "profile_method": chunk(b"iCCP", b"name\0\x07" + zlib.compress(b"profile")),
    "profile_empty": chunk(b"iCCP", b""),
    "gamma_short": chunk(b"gAMA", b""),
    "pixel_size_short": chunk(b"pHYs", b"\0"),
    "animation_short": chunk(b"acTL", b"\0\0"),
}


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_broken_chunk_of_png_metadata_does_not_refuse_pixels(name, before):
    assert (decoded(with_chunk(saved("png"), BAD_CHUNKS[name], before)) == NOISE).all()


def test_a_png_orientation_with_a_wrong_sum_means_upright():
    broken = chunk(b"eXIf", exif(x0112=6)[6:], right_sum=False)
    assert (decoded(with_chunk(saved("png"), broken)) == NOISE).all()


def test_what_is_left_of_a_png_keeps_its_colours_and_its_orientation():
    image = Image.new("P", (3, 2))
    image.putpalette([0, 0, 0, 10, 200, 30, 7, 7, 7])
    image.putdata([0, 1, 2, 1, 0, 2])
    buffer = io.BytesIO()
    image.save(buffer, "png", transparency=1, exif=exif(x0112=3))
    broken = with_chunk(buffer.getvalue(), BAD_CHUNKS["sum"])
    found = decode_bytes(broken, name="a.png")
    assert (found.mode, found.info["transparency"]) == ("P", 1)
    assert np.asarray(found).tolist() == [[2, 0, 1], [2, 1, 0]]


BAD_SEGMENTS = {
    "icc": (0xE2, b"ICC_PROFILE\0"),
    "mpf": (0xE2, b"MPF\0"),
    "mpf_garbage": (0xE2, b"MPF\0II*\0\x08\0\0\0garbage"),
    "photoshop": (0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
    "exif": (0xE1, b"Exif\0\0II"),
    "xmp": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>\xff"),
}


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("name", BAD_SEGMENTS)
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_broken_segment_of_jpeg_metadata_does_not_refuse_pixels(name, mode):
    buffer = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(buffer, "jpeg")  # CMYK hangs on Adobe's APP14
    data = buffer.getvalue()
    with Image.open(io.BytesIO(data)) as image:
        plain = np.asarray(image)
    assert (decoded(with_segment(data, *BAD_SEGMENTS[name])) == plain).all()
    # Beside it, an orientation is still read.
    turned = with_segment(with_segment(data, *BAD_SEGMENTS[name]), 0xE1, exif(x0112=3))
    if name != "exif":
        assert (decoded(turned) == plain[::-1, ::-1]).all()


def png_header(width, height):
    """A PNG file of one-bit pixels without any."""
    return saved("png")[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("size", "limit", "megapixels"),
    [((13_500, 13_500), 178, 182), ((2_000, 1_500), 2, 3), ((1_000, 1_000_000), 999, 1_000)],
)
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(size, limit, megapixels):
    header = png_header(*size) + chunk(b"IDAT", b"no pixels")
    message = (
        rf"image a/b\.png has {size[0]} x {size[1]} pixels, {megapixels} megapixels, more than "
        rf"data.max_megapixels={limit}: --config.data.max_megapixels={megapixels}"
    )
    with pytest.raises(UserError, match=message):
        decode_bytes(header, name="a/b.png", max_megapixels=limit)
    # Allowed as the message says, it is refused for what it is: no picture.
    with pytest.raises(UserError, match="cannot decode"):
        decode_bytes(header, name="a/b.png", max_megapixels=megapixels)


def test_a_picture_of_182_megapixels_is_decoded_where_it_is_allowed():
    pixels = zlib.compress(bytes((1 + 13_500 // 8 + 1) * 13_500))
    data = png_header(13_500, 13_500) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert decode_bytes(data, name="a.png", max_megapixels=182).size == (13_500, 13_500)


def test_more_pixels_than_pillow_warns_of_pass_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a warning is an error in tests
    assert (decoded(saved("png")) == NOISE).all()


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_broken_metadata_do_not_let_truncated_pixels_pass(form, kept):
    data = saved(form)
    whole = with_chunk(data, BAD_CHUNKS["sum"]) if form == "png" else with_segment(data, *BAD_SEGMENTS["icc"])
    decoded(whole)
    with pytest.raises(UserError, match=r"a/b\.jpg"):
        decoded(whole[: int(kept * len(whole))])


@pytest.mark.parametrize(("suffix", "exact"), [("jpg", False), ("png", True), ("webp", False)])
def test_exif_orientation_is_applied(tmp_path, suffix, exact):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # show turned by 90 degrees clockwise: white on the right
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    shown = np.asarray(decode_file(tmp_path / f"a.{suffix}").convert("RGB")).astype(int)
    expected = np.rot90(pixels, -1)
    assert (shown == expected).all() if exact else abs(shown - expected).max() < 60


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_named_even_where_pillow_was_told_to_load_it(tmp_path, monkeypatch, suffix, kept):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(UserError, match=f"broken.{suffix}"):
        decode_file(path)


def test_files_that_are_no_image_or_not_there_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("text.png", "missing.png"):
        with pytest.raises(UserError, match=name):
            decode_file(tmp_path / name)
