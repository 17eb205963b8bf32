"""Decodes the bytes of an image file to pixels, rotated upright."""

import io
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from gormley_vision.data.metadata import without_metadata
from gormley_vision.errors import UserError

# Pillow's own limit, 2 x 89,478,485 pixels, in millions.
MAX_MEGAPIXELS = 178
# The operation that rotates a picture of each EXIF orientation upright; 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_file(path: str | Path, max_megapixels: int = MAX_MEGAPIXELS) -> Image.Image:
    """Read and decode an image file; see `decode_bytes`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from error
    return decode_bytes(data, name=str(path), max_megapixels=max_megapixels)


def decode_bytes(data: bytes, *, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> Image.Image:
    """Decode an image file's bytes, rotated upright by its EXIF orientation.

    Broken metadata do not matter: if a PNG or JPEG file cannot be decoded, it is decoded without its metadata.

    Args:
        data: the content of the file.
        name: its name in errors, the path.
        max_megapixels: limit in millions of pixels, rounded down; larger images are refused without decoding.

    Returns:
        A loaded Pillow image in the file's own mode; the first one of an animation or of several pages.

    Raises:
        UserError: the file is truncated, not an image that Pillow can decode, or too large. Names it.
    """
    # A process-wide switch that other packages turn on; with it Pillow fills the missing part with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Another, which warns from half of its limit on, without advice; `_check_size` replaces it.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return _decode(data, name, max_megapixels)
    except (MemoryError, UserError):
        raise
    # Broken files raise anything in Pillow: OSError, SyntaxError, ValueError, struct.error, IndexError.
    except Exception as error:
        image = _decode_without_metadata(data, name, max_megapixels)
        if image is not None:
            return image
        # Pillow names the buffer's address instead.
        why = "not an image of any kind that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(
            f"cannot decode the image {name} ({len(data)} bytes): {why}. Replace the file or remove it."
        ) from error


def _decode(data: bytes, name: str, max_megapixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    _check_size(image, name, max_megapixels)
    image.load()
    return upright(image)


def _check_size(image: Image.Image, name: str, max_megapixels: int) -> None:
    """Refuse an opened image by the size in its header: a small file can need any amount of memory."""
    megapixels = image.width * image.height // 1_000_000
    if megapixels > max_megapixels:
        raise UserError(
            f"the image {name} has {image.width} x {image.height} pixels, {megapixels} megapixels, more than "
            f"data.max_megapixels={max_megapixels}: --config.data.max_megapixels={megapixels}, or make it smaller"
        )


def _decode_without_metadata(data: bytes, name: str, max_megapixels: int) -> Image.Image | None:
    """Decode the image without its metadata; None if its pixels are broken, too."""
    for stripped in without_metadata(data):
        try:
            return _decode(stripped, name, max_megapixels)
        except (MemoryError, UserError):
            raise
        except Exception:  # the caller reports the first error
            continue
    return None


def upright(image: Image.Image) -> Image.Image:
    """Rotate a loaded image by its EXIF orientation; an unreadable one means upright.

    Pillow's own exif_transpose also writes the EXIF data, which fails if any other tag is invalid.
    """
    try:
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
        method = UPRIGHT.get(orientation)
    # Broken EXIF data raise anything, like broken files; an orientation may be a list, which cannot be a key.
    except Exception:
        return image
    return image if method is None else image.transpose(method)
