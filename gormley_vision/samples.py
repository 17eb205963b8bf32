"""Pictures and texts that a model made, and how they are written to files."""

import dataclasses
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gormley_vision.errors import UserError
from gormley_vision.files import write_atomically


def to_uint8(images: Any) -> np.ndarray:
    """Convert [-1, 1] to uint8 [0, 255], rounded."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Tile uint8 [n, H, W, C] to one picture [rows*(H+2)-2, columns*(W+2)-2, C], row by row, white where empty."""
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, channels), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        grid[top : top + height, left : left + width] = image
    return grid


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W, C], with 1 or 3 channels, as PNG, atomically."""
    buffer = BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def read_png(path: Path) -> np.ndarray:
    """Read a PNG that `write_png` wrote, as uint8 [H, W, C]."""
    with Image.open(path) as picture:
        pixels = np.array(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Images float32 [n, H, W, C] in [-1, 1] and, if they have classes, int32 labels [n] and all names.

    `columns` of the grid; 0 for a square, or one row for each class if there are several.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    columns: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def grid(self) -> np.ndarray:
        """Return all images in one picture, uint8 [height, width, C]."""
        images, columns = self.images, self.columns
        if not columns and self.labels is not None and len(classes := set(self.labels.tolist())) > 1:
            images, columns = images[self.labels.argsort(kind="stable")], -(-len(images) // len(classes))
        return tile(to_uint8(images), columns or max(1, round(len(images) ** 0.5)))

    def write(self, out: Path) -> None:
        """Write FILE.png with a grid, FILE.npz with uint8 `images` (and `labels`), or a folder with a PNG per image."""
        form = _form(out)
        if form == ".png":
            write_png(out, self.grid())
        elif form == ".npz":
            buffer = BytesIO()
            named: Any = (
                {} if self.labels is None else {"labels": self.labels, "class_names": np.array(self.class_names)}
            )
            np.savez(buffer, images=to_uint8(self.images), **named)
            write_atomically(out, buffer.getvalue())
        elif form == "":
            for index, image in enumerate(to_uint8(self.images)):
                suffix = "" if self.labels is None else f"_class{self.labels[index]}"
                write_png(out / f"{index:06d}{suffix}.png", image)
        else:
            raise UserError(f"--out={out}: write FILE.png, FILE.npz or a folder's name")


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts, in order."""

    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def joined(self) -> str:
        """Return all texts as one, separated by lines of dashes."""
        return "\n---\n".join(self.texts) + "\n"

    def write(self, out: Path) -> None:
        """Write FILE.txt with all texts, FILE.jsonl with one JSON line for each, or a folder with one file for each."""
        form = _form(out)
        if form == ".txt":
            write_atomically(out, self.joined().encode())
        elif form == ".jsonl":
            lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in self.texts)
            write_atomically(out, lines.encode())
        elif form == "":
            for index, text in enumerate(self.texts):
                write_atomically(out / f"{index:06d}.txt", text.encode())
        else:
            raise UserError(f"--out={out}: write FILE.txt, FILE.jsonl or a folder's name")


Samples = Pictures | Texts


def _form(out: Path) -> str:
    """Return the suffix in lower case, '' for a folder.

    Raises:
        UserError: the folder already has files.
    """
    if not out.is_dir():
        return out.suffix.lower()
    if any(out.iterdir()):
        raise UserError(f"--out={out} has files, and these would be mixed with them: pass a new folder")
    return ""
