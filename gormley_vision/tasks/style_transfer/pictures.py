"""Reads single pictures at their own shape: what is restyled, and what has the style."""

from pathlib import Path

import numpy as np

from gormley_vision.data.decoding import decode_file
from gormley_vision.data.images import RESIZE_FILTERS, to_mode
from gormley_vision.errors import UserError
from gormley_vision.files import user_path
from gormley_vision.tasks.style_transfer.fields import FAKE


def open_picture(what: str, text: str, size: int) -> np.ndarray:
    """Return a picture, uint8 [1, H, W, 3]: RGB, on white where it was transparent.

    Args:
        what: the key or flag that names it, for errors.
        text: a file as typed, or 'fake' for a drawing: a disc in `style.content`, stripes else.
        size: pixels of the longer side; 0 for the picture's own.

    Raises:
        UserError: the file cannot be read. Names what to type.
    """
    if text == FAKE:
        return _drawn(size or 64, disc=what == "style.content")[None]
    if not text:
        raise UserError(f"{what} is empty: name a picture's file, such as photo.jpg")
    path = user_path(text)
    if not path.is_file():
        here = "" if path.is_absolute() else f" in {Path.cwd()}; a run finds its pictures from where it was trained"
        raise UserError(f"{what}={text}: there is no such file{here}")
    try:
        image = to_mode(decode_file(path), "RGB")
    except UserError as error:
        raise UserError(f"{what}={text}: {error}") from None
    factor = size / max(image.size) if size else 1
    shape = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    if shape != image.size:
        image = image.resize(shape, RESIZE_FILTERS["lanczos"])
    return np.array(image, np.uint8)[None]


def _drawn(size: int, disc: bool) -> np.ndarray:
    """Draw [size, size, 3]: a bright disc on a shaded ground, or stripes of two colours."""
    y, x = np.mgrid[:size, :size] / size
    if disc:
        inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1
        return np.stack([np.where(inside, 230, 120 * y), np.where(inside, 200, 160 * x), 200 - 100 * y], -1).astype(
            "u1"
        )
    stripes = np.sin(2 * np.pi * 8 * (x + y)) > 0
    return np.where(stripes[..., None], np.array([240, 180, 40]), np.array([30, 40, 110])).astype(np.uint8)
