"""A folder of image files, with or without class subfolders."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.data.images import Conversion, decode_file
from gormley_vision.errors import UserError

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


class FolderSource:
    """Images decoded from files at each read."""

    def __init__(
        self,
        root: Path,
        files: Sequence[tuple[str, int]],
        class_names: tuple[str, ...],
        conversion: Conversion,
    ) -> None:
        self.class_names = class_names
        self._root = root
        self._files = files
        self._conversion = conversion
        # Paths relative to the root: a folder that was moved keeps its cache.
        self.identity: dict[str, Any] = {
            "source": "folder",
            "classes": class_names,
            "files": [(file, *_size_and_time(root / file)) for file, _ in files],
            "decode": asdict(conversion),
        }

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        file, label = self._files[index]
        path = self._root / file
        image = decode_file(path)
        try:
            return self._conversion(image), label
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def open_folder(_name: str, path: str, split: str, conversion: Conversion) -> FolderSource:
    """Reads the listing of `path/split`, or of `path` where there is no such subfolder.

    Images lie directly inside (unlabelled), or in one subfolder a class; classes and files are sorted by
    name, so that the order is the same on every machine. Hidden files and other suffixes are left out.

    Raises:
      UserError: no folder, no images, images both inside and in subfolders, or a split that is not there.
    """
    if not path:
        raise UserError("data.source='folder' needs a folder of images: --config.data.path=FOLDER")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"no folder {root.absolute()}: set --config.data.path=FOLDER")
    has_split = bool(split) and (root / split).is_dir()
    root = root / split if has_split else root
    images, folders = _list(root)
    by_class = {folder: _list(root / folder)[0] for folder in folders}
    inside = sum(map(len, by_class.values()))
    if not has_split and split not in ("", "train"):
        raise UserError(
            f"{root} has no subfolder {split!r}. A folder without one for each split is one split, 'train': "
            "--config.data.split=train"
        )
    if images and inside:
        raise UserError(
            f"{root} has {len(images)} images at its top and {inside} in subfolders "
            f"({', '.join(name for name in folders if by_class[name])}): move either away"
        )
    if not images and not inside:
        within = f" Its subfolders are: {', '.join(folders[:10])}." if folders else ""
        raise UserError(
            f"no images ({', '.join(SUFFIXES)}) in {root} or in its subfolders.{within} "
            "Set --config.data.path=FOLDER or --config.data.split=SUBFOLDER"
        )
    if images:
        return FolderSource(root, [(image, -1) for image in images], (), conversion)
    empty = [folder for folder in folders if not by_class[folder]]
    if empty:
        raise UserError(
            f"class folders without images in {root}: {', '.join(empty[:10])}. Remove them, or point "
            "--config.data.path at the folder whose subfolders are the classes"
        )
    files = [(f"{name}/{image}", label) for label, name in enumerate(folders) for image in by_class[name]]
    return FolderSource(root, files, tuple(folders), conversion)


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the images and of the subfolders that lie directly in a folder."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        folders = sorted(entry.name for entry in visible if entry.is_dir())
        images = sorted(entry.name for entry in visible if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir())
    return images, folders


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError as error:
        raise UserError(f"cannot read the image {file}: {error.strerror or error}") from error
    return stat.st_size, stat.st_mtime_ns
