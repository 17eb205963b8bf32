"""From the bytes of an image file to its pixels, turned upright."""

import io
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from gormley_vision.data.metadata import without_metadata
from gormley_vision.errors import UserError

# Pillow's own refusal, 2 x 89,478,485 pixels, in millions, rounded down.
MAX_MEGAPIXELS = 178
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


def decode_file(path: str | Path, max_megapixels: int = MAX_MEGAPIXELS) -> Image.Image:
    """Read and decode an image file; see `decode_bytes`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from error
    return decode_bytes(data, name=str(path), max_megapixels=max_megapixels)


def decode_bytes(data: bytes, *, name: str, max_megapixels: int = MAX_MEGAPIXELS) -> Image.Image:
    """Decode an image file's bytes, turned upright as its EXIF orientation says.

    Metadata never refuse pixels: where a PNG or JPEG file does not decode as it is, it is decoded without them.

    Args:
      data: the bytes of the file.
      name: what to call it in an error: its path.
      max_megapixels: millions of pixels, rounded down, that a picture may have; more are refused undecoded.

    Returns:
      A loaded Pillow image in the file's own mode; of an animation or of several pages, the first.

    Raises:
      UserError: truncated, not an image that Pillow can decode, or too large; names `name`.
    """
    # A process-wide switch that other packages turn on; with it Pillow fills the missing part with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Another, which warns of half of what it refuses and says nothing that one could type; ours stands for it.
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
    """Refuse an opened image by the size that its header says: a small file can ask for any memory."""
    megapixels = image.width * image.height // 1_000_000
    if megapixels > max_megapixels:
        raise UserError(
            f"the image {name} has {image.width} x {image.height} pixels, {megapixels} megapixels, more than "
            f"data.max_megapixels={max_megapixels}: --config.data.max_megapixels={megapixels}, or make it smaller"
        )


def _decode_without_metadata(data: bytes, name: str, max_megapixels: int) -> Image.Image | None:
    """The image by its pixels alone; None where these are broken too."""
    for stripped in without_metadata(data):
        try:
            return _decode(stripped, name, max_megapixels)
        except (MemoryError, UserError):
            raise
        except Exception:  # the caller tells of the first fault
            continue
    return None


def upright(image: Image.Image) -> Image.Image:
    """Turn a loaded image as its EXIF orientation says; one that cannot be read means upright.

    Pillow's own exif_transpose also writes the EXIF again, which fails where any other tag is odd.
    """
    try:
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
        method = UPRIGHT.get(orientation)
    # Broken EXIF raises anything, as broken files do; an orientation may be a list, which is no key.
    except Exception:
        return image
    return image if method is None else image.transpose(method)
