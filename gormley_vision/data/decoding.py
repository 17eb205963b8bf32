"""From the bytes of an image file to its pixels, turned upright."""

import io
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageFile

from gormley_vision.data.metadata import without_metadata
from gormley_vision.errors import UserError

# What turns a picture of each EXIF orientation upright; 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_file(path: str | Path) -> Image.Image:
    """Reads and decodes an image file; see `decode_bytes`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from error
    return decode_bytes(data, name=str(path))


def decode_bytes(data: bytes, *, name: str) -> Image.Image:
    """Decodes an image file's bytes, turned upright as its EXIF orientation says.

    Metadata never refuse pixels: where a PNG or JPEG file does not decode as it is, it is decoded without them.

    Args:
      data: the whole file.
      name: what to call it in an error: its path.

    Returns:
      A loaded Pillow image in the file's own mode; of an animation or of several pages, the first.

    Raises:
      UserError: truncated, or not an image that Pillow can decode; names `name`.
    """
    # A process-wide switch that other packages turn on; with it Pillow fills the missing part with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        return _decode(data)
    except MemoryError:
        raise
    # Broken files raise anything in Pillow: OSError, SyntaxError, ValueError, struct.error, IndexError.
    except Exception as error:
        image = _decode_without_metadata(data)
        if image is not None:
            return image
        raise UserError(
            f"cannot decode the image {name} ({len(data)} bytes): {error}. Replace the file or remove it."
        ) from error


def _decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return upright(image)


def _decode_without_metadata(data: bytes) -> Image.Image | None:
    """The image by its pixels alone; None where these are broken too."""
    for stripped in without_metadata(data):
        try:
            return _decode(stripped)
        except MemoryError:
            raise
        except Exception:  # the caller tells of the first fault
            continue
    return None


def upright(image: Image.Image) -> Image.Image:
    """Turns a loaded image as its EXIF orientation says; one that cannot be read means upright.

    Pillow's own exif_transpose also writes the EXIF again, which fails where any other tag is odd.
    """
    try:
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
        method = UPRIGHT.get(orientation)
    # Broken EXIF raises anything, as broken files do; an orientation may be a list, which is no key.
    except Exception:
        return image
    return image if method is None else image.transpose(method)
