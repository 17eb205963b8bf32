"""Pictures, points and texts that a model made, and how they are written to files."""

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


FIELD = 64  # points along a side of a discriminator's field
_PLOT = 256  # pixels along a side of a plot


def field_points(extent: float) -> np.ndarray:
    """Return the centres of FIELD x FIELD cells from -extent to extent, float32 [FIELD^2, 2], x before y, y upwards."""
    centres = ((np.arange(FIELD) + 0.5) / FIELD * 2 - 1) * extent
    x, y = np.meshgrid(centres, centres[::-1])
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Points:
    """Vectors [n, d]: a plot shows the first two numbers, from -extent to extent, over a field of logits if given.

    `field` [FIELD, FIELD] is at `field_points`: blue where the discriminator takes a point for fake, red for real, and
    white at its median.
    """

    values: np.ndarray
    extent: float
    field: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def grid(self) -> np.ndarray:
        """Return the plot, uint8 [256, 256, 3]; points outside are left out."""
        plot = np.full((_PLOT, _PLOT, 3), 255.0)
        if self.field is not None:
            above = self.field - np.median(self.field)
            shade = np.clip(above / max(np.quantile(np.abs(above), 0.95), 1e-12), -1, 1)
            shade = np.kron(shade, np.ones((_PLOT // FIELD, _PLOT // FIELD)))[..., None]
            plot -= 150 * np.abs(shade) * np.where(shade > 0, np.array([0.0, 1, 1]), np.array([1.0, 1, 0]))
        values = np.pad(np.asarray(self.values, np.float64), ((0, 0), (0, 1)))[:, :2]  # one number lies on a line
        spots = values * np.array([1, -1]) / self.extent
        at = np.floor((spots + 1) / 2 * _PLOT)
        at = at[np.isfinite(at).all(1) & (at >= 0).all(1) & (at < _PLOT - 1).all(1)].astype(int)
        for down in (0, 1):
            for right in (0, 1):
                plot[at[:, 1] + down, at[:, 0] + right] = 0
        return plot.astype(np.uint8)

    def write(self, out: Path) -> None:
        """Write FILE.png with the plot, FILE.npz with float32 `vectors` (and `labels`), or FILE.csv."""
        form = _form(out)
        if form == ".png":
            write_png(out, self.grid())
        elif form == ".npz":
            buffer = BytesIO()
            named: Any = {} if self.labels is None else {"labels": self.labels}
            np.savez(buffer, vectors=np.asarray(self.values, np.float32), **named)
            write_atomically(out, buffer.getvalue())
        elif form == ".csv":
            rows = self.values.tolist()
            if self.labels is not None:
                rows = [[*row, label] for row, label in zip(rows, self.labels.tolist(), strict=True)]
            write_atomically(out, "".join(",".join(map(repr, row)) + "\n" for row in rows).encode())
        else:
            raise UserError(f"--out={out}: write FILE.png, FILE.npz or FILE.csv")


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


Samples = Pictures | Points | Texts


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
