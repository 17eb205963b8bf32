"""The shape of images in a folder or an .npz file, from headers alone."""

from pathlib import Path

import numpy as np
from PIL import Image

from gormley_vision.data import slices
from gormley_vision.data.folder_listing import image_suffixes, list_files
from gormley_vision.errors import UserError

_WANTED = "pass a folder of pictures, or an .npz file with uint8 images [N, H, W] or [N, H, W, C]"


def is_npz(path: Path) -> bool:
    """Return whether a path names an .npz file."""
    return path.suffix.lower() == ".npz"


def shape_of(path: Path, split: str = "") -> tuple[int, int, int]:
    """Return height, width and channels: of an .npz file's images, or of the pictures in a folder's `split`.

    Height and width are those of the folder's first picture; channels are 3 if any is in colour, else 1.

    Raises:
        UserError: there are none, or they are neither grey nor RGB. Says what to pass.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: {_WANTED}")
    return _of_array(path) if is_npz(path) else _of_pictures(path, slices.name_of(split))


def _of_array(path: Path) -> tuple[int, int, int]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            shape = file["images"].shape
    except Exception as error:  # many kinds, depending on the damage, and a TypeError for a single array (.npy)
        raise UserError(f"{path} cannot be read ({error}): {_WANTED}") from None
    height, width, channels = (*shape[1:], 1) if len(shape) == 3 else shape[1:] if len(shape) == 4 else (0, 0, 0)
    if channels not in (1, 3):
        alpha = ". Drop the alpha channel: images[..., :3]" if channels == 4 else ""
        raise UserError(
            f"{path}: images have shape {shape}; need [N, H, W], or [N, H, W, C] with 1 or 3 channels{alpha}"
        )
    return height, width, channels


def _of_pictures(path: Path, split: str) -> tuple[int, int, int]:
    if not path.is_dir():
        raise UserError(f"{path} is a file: {_WANTED}")
    root = path / split if split and (path / split).is_dir() else path
    pictures = [root / name for name in list_files(root) if Path(name).suffix.lower() in image_suffixes()]
    if not pictures:
        raise UserError(f"{root} has no images: {_WANTED}")
    height, width, channels = _of_picture(pictures[0])
    return height, width, channels if channels == 3 else max(_of_picture(picture)[2] for picture in pictures)


def _of_picture(file: Path) -> tuple[int, int, int]:
    try:
        with Image.open(file) as picture:  # decodes nothing
            grey = picture.mode in ("1", "L", "LA", "La", "F") or picture.mode.startswith("I")
            return picture.height, picture.width, 1 if grey else 3
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
