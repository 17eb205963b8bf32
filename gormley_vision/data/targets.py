"""A target for each picture of a folder: of a second folder, by name, or the right half of the picture itself."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gormley_vision.data.decoding import decode_file
from gormley_vision.data.features import Feature
from gormley_vision.data.folder_listing import list_folder
from gormley_vision.errors import UserError, listed
from gormley_vision.files import user_path

KINDS = ("label_map", "image")
# The class of pixels that losses ignore, in VOC, Cityscapes and most later sets; and of pixels outside of a picture.
VOID = 255
# Lists the classes of label maps, one per line, at the top of their folder.
CLASSES_FILE = "classes.txt"
# Formats that change pixels, and therefore classes.
_LOSSY = (".jpg", ".jpeg", ".jfif")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Targets:
    """One target for each picture of the first folder, in their order."""

    root: Path
    files: Sequence[str]
    feature: Feature

    def read(self, index: int, max_megapixels: int) -> Any:
        """Read a Pillow image, or a label map, uint8 [H, W].

        Raises:
            UserError: the file cannot be decoded, or has pixels that are not classes. Names it.
        """
        path = self.root / self.files[index]
        image = decode_file(path, max_megapixels)
        return image if self.feature.kind == "image" else classes_of(path, image, len(self.feature.class_names))


def halves(image: Image.Image, path: Path) -> tuple[Image.Image, Image.Image]:
    """Cut a picture into its left and right half: an image and its target, side by side as in pix2pix's sets.

    Raises:
        UserError: the width is odd. Names the file.
    """
    if image.width % 2:
        raise UserError(
            f"{path} is {image.width} pixels wide, so it is not two pictures side by side: "
            "--config.data.side_by_side=false, or remove it"
        )
    half = image.width // 2
    return image.crop((0, 0, half, image.height)), image.crop((half, 0, image.width, image.height))


def open_targets(folder: str, kind: str, split: str, images: Sequence[str], feature: Feature) -> Targets:
    """Find for each picture the target with the same path except for its suffix: `cat/1.png` for `cat/1.jpg`.

    Args:
        folder: as typed; it contains the targets, or its subfolder `split` does.
        kind: one of `KINDS`.
        split: a subfolder that is used if it exists.
        images: paths of the first folder's pictures, relative to it.
        feature: of the first folder's pictures.

    Raises:
        UserError: there is no folder, several pictures of one name, a picture without a target, or a JPEG label map.
    """
    top = user_path(folder)
    root = top / split if split and (top / split).is_dir() else top
    if not root.is_dir():
        raise UserError(f"no folder {root.absolute()}: set --config.data.targets=FOLDER")
    listing = list_folder(root)
    found = [*listing.images, *(f"{name}/{image}" for name, paths in listing.by_class.items() for image in paths)]
    by_name = {_without_suffix(file): file for file in found}
    for files, where in ((found, root), (images, "data.path")):
        if twice := [name for name, count in Counter(map(_without_suffix, files)).items() if count > 1]:
            raise UserError(f"several pictures of one name in {where}: {listed(twice)}: move all but one away")
    if unmatched := [file for file in images if _without_suffix(file) not in by_name]:
        raise UserError(
            f"{len(unmatched)} of {len(images)} images have no picture of their name in {root}: {listed(unmatched)}; "
            "add one for each, or move these away"
        )
    files = [by_name[_without_suffix(file)] for file in images]
    if others := sorted(set(found) - set(files)):
        _log.warning("%s: left out, since they belong to no image: %s", root, listed(others))
    if kind == "image":
        return Targets(root, files, feature)
    if lossy := [file for file in files if Path(file).suffix.lower() in _LOSSY]:
        raise UserError(
            f"{root / lossy[0]} is a JPEG file, which does not keep the classes of a label map: save it as PNG, or, "
            "if it is an image, pass --config.data.target_kind=image"
        )
    return Targets(root, files, Feature("label_map", feature.shape[:2], "uint8", _class_names(top), fill=VOID))


def _without_suffix(file: str) -> str:
    return file.rpartition(".")[0]


def _class_names(folder: Path) -> tuple[str, ...]:
    file = folder / CLASSES_FILE
    if not file.is_file():
        return ()
    return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())


def classes_of(path: Path, image: Image.Image, count: int) -> np.ndarray:
    """Return the classes of a label map: a grey picture's values, or a palette's indices, not its colours."""
    classes = np.asarray(image).astype(np.int64)
    if classes.ndim != 2 or image.mode == "F" or classes.min() < 0 or classes.max() > VOID:
        raise UserError(
            f"{path} is not a label map: its pixels are {image.mode}, but classes are grey or palette numbers from 0 "
            f"to 254, {VOID} for none: save it as such, or pass --config.data.target_kind=image"
        )
    if count and (unnamed := sorted(set(np.unique(classes).tolist()) - set(range(count)) - {VOID})):
        raise UserError(f"{path} has the class {unnamed[0]}, but {CLASSES_FILE} names 0 to {count - 1}: add its name")
    return classes.astype(np.uint8)
