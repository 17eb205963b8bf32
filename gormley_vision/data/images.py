"""Converts decoded images to uint8 arrays of the config's size."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from gormley_vision.data.choices import check_choice
from gormley_vision.data.decoding import MAX_MEGAPIXELS
from gormley_vision.data.features import Feature
from gormley_vision.data.windows import Window, window_of
from gormley_vision.errors import UserError

CROPS = ("center", "none", "resize_center")
CROP_FRACTION = 0.875
# A hundredth of the shorter side; with less, a resized image could need any amount of memory.
MIN_CROP_FRACTION = 0.01
RESIZE_FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Behind transparent pixels: white.
BACKGROUND = (255, 255, 255, 255)


@dataclass(frozen=True)
class Conversion:
    """How a decoded image becomes uint8 [image_size, image_size, channels]: `to_uint8`'s arguments.

    `max_megapixels` is for decoding the image before; see `decoding.decode_bytes`.

    Raises:
        UserError: a value is invalid. Names the override to type.
    """

    image_size: int
    channels: int
    crop: str
    resize_filter: str
    crop_fraction: float = CROP_FRACTION
    max_megapixels: int = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UserError(f"data.image_size={self.image_size} is not a number of pixels: --config.data.image_size=32")
        if self.channels not in (1, 3):
            raise UserError(
                f"data.channels={self.channels}: images are grey (--config.data.channels=1) "
                "or RGB (--config.data.channels=3)"
            )
        if self.max_megapixels < 1:
            raise UserError(f"data.max_megapixels={self.max_megapixels}: --config.data.max_megapixels={MAX_MEGAPIXELS}")
        check_choice("data.crop", self.crop, CROPS)
        if not MIN_CROP_FRACTION <= self.crop_fraction <= 1:
            raise UserError(
                f"data.crop_fraction={self.crop_fraction} is not between {MIN_CROP_FRACTION} and 1: "
                f"--config.data.crop_fraction={CROP_FRACTION}"
            )
        check_choice("data.resize_filter", self.resize_filter, RESIZE_FILTERS)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Conversion":
        """Make a conversion from a config's data section.

        Raises:
            UserError: the config's task does not learn from images, so the keys for them are missing.
        """
        if "image_size" not in data:
            raise UserError(
                f"data.source={data['source']} makes images, but this task's config has no data.image_size: it learns "
                "from something else, such as --config.data.source=text or a module of yours"
            )
        return cls(**{key: data[key] for key in cls.__dataclass_fields__})

    @property
    def feature(self) -> Feature:
        """The feature that describes the result."""
        return Feature("image", (self.image_size, self.image_size, self.channels), "uint8")

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the pixels, as JSON, for a source's identity."""
        fields = asdict(self)
        del fields["max_megapixels"]  # refuses pictures, but does not change pixels
        if self.crop != "resize_center":  # only resize_center reads it
            del fields["crop_fraction"]
        return fields

    def window(self, width: int, height: int) -> Window:
        """Return the window that maps a picture's pixels."""
        return window_of(width, height, self.image_size, self.crop, self.crop_fraction)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Convert one image; see `to_uint8`.

        Raises:
            UserError: the image would be too large when resized, or cannot be converted.
        """
        self._check_resized(image)
        return to_uint8(
            image,
            image_size=self.image_size,
            channels=self.channels,
            crop=self.crop,
            resize_filter=self.resize_filter,
            crop_fraction=self.crop_fraction,
        )

    def _check_resized(self, image: Image.Image) -> None:
        """Refuse thin images: if 1 x 100,000 pixels are resized to a width of 256, the height is 25 million."""
        window = self.window(*image.size)
        width, height = window.x.resized, window.y.resized
        megapixels = width * height // 1_000_000
        if self.crop == "resize_center" and megapixels > self.max_megapixels:
            raise UserError(
                f"an image of {image.width} x {image.height} pixels becomes {width} x {height} before the centre is "
                f"cut out, {megapixels} megapixels, more than data.max_megapixels={self.max_megapixels}: remove it, or "
                f"pass --config.data.max_megapixels={megapixels} or --config.data.crop=center"
            )


def to_uint8(
    image: Image.Image,
    *,
    image_size: int,
    channels: int,
    crop: str,
    resize_filter: str,
    crop_fraction: float = CROP_FRACTION,
) -> np.ndarray:
    """Convert an image of any mode to grey or RGB, crop and resize it.

    Transparency is composited on white, 16-bit grey is scaled by 1/257 and rounded, CMYK and palettes
    become RGB, and colour becomes grey by ITU-R 601 luma (Pillow's). Pillow loads only the high
    byte of each sample in 16-bit RGB PNG files.

    Args:
        image: a Pillow image, as `decoding.decode_file` returns it.
        image_size: side of the result, in pixels.
        channels: 1 (grey) or 3 (RGB).
        crop: "center", the largest centred square (with an odd surplus, one more pixel is cut at the right and bottom:
          the offset is floored, while torchvision rounds halves to even), resized; "none", the entire image squeezed
          into a square; "resize_center", exactly as torchvision, timm and most papers evaluate: the shorter side is
          resized to floor(image_size / crop_fraction), then the centre is cut out, its offsets rounded, halves to even.
        resize_filter: a key of `RESIZE_FILTERS`; all average over the source area when shrinking.
          An image that already fits is not resampled.
        crop_fraction: for "resize_center", the share of the shorter side that is kept, in [0.01, 1].

    Returns:
        uint8 [image_size, image_size, channels].

    Raises:
        UserError: the mode has no range for 8-bit pixels (floating point), or Pillow cannot convert it.
    """
    window = window_of(*image.size, image_size, crop, crop_fraction)
    x, y = window.x, window.y
    image = to_mode(image, "L" if channels == 1 else "RGB")
    image = image.crop((x.start, y.start, x.start + x.length, y.start + y.length))
    if image.size != (x.resized, y.resized):
        image = image.resize((x.resized, y.resized), RESIZE_FILTERS[resize_filter])
    image = image.crop((x.cut, y.cut, x.cut + image_size, y.cut + image_size))
    return np.array(image, dtype=np.uint8).reshape(image_size, image_size, channels)


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert to "L" or "RGB"; Pillow's own `convert` drops transparency and clips 16-bit grey."""
    if image.mode == "F":
        raise UserError("a floating-point image has no fixed range: save it as 8-bit or 16-bit PNG")
    if image.mode == "I" or image.mode.startswith("I;16"):
        words = np.asarray(image).astype(np.int64)
        if words.min() < 0 or words.max() > 65535:
            raise UserError("a 32-bit image has no fixed range: save it as 8-bit or 16-bit PNG")
        # (v + 128) // 257 is v / 257 rounded to nearest: 257 is odd, so there are no ties.
        image = Image.fromarray(((words + 128) // 257).astype(np.uint8))
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, BACKGROUND), rgba)
        return image if image.mode == mode else image.convert("RGB").convert(mode)
    except ValueError as error:  # for instance LAB before Pillow 12
        raise UserError(f"Pillow has no conversion of mode {image.mode} to {mode}: save the image as RGB") from error


def from_array(array: np.ndarray) -> Image.Image:
    """Return a Pillow image of uint8 [H, W] or [H, W, 1] (grey) or [H, W, 3] (RGB)."""
    squeezed: Any = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    return Image.fromarray(np.ascontiguousarray(squeezed))
