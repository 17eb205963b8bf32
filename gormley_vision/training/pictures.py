"""Pictures: from [-1, 1] to uint8, to one grid, to a PNG file."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gormley_vision.files import write_atomically


def to_uint8(images: Any) -> np.ndarray:
    """[-1, 1] to uint8 [0, 255], rounded."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 [n, H, W, C] to one picture [rows*(H+2)-2, columns*(W+2)-2, C], row by row, white where empty."""
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, channels), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        grid[top : top + height, left : left + width] = image
    return grid


def write_png(path: Path, image: np.ndarray) -> None:
    """uint8 [H, W, C], C 1 or 3, as PNG, atomically."""
    buffer = BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def read_png(path: Path) -> np.ndarray:
    """What `write_png` wrote: uint8 [H, W, C]."""
    with Image.open(path) as picture:
        pixels = np.array(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
