"""A folder of image files, with or without class subfolders, and with or without a target picture for each."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.data.choices import check_choice
from gormley_vision.data.decoding import decode_file
from gormley_vision.data.features import Example, Feature, label_feature
from gormley_vision.data.folder_listing import Listing, list_folder, size_and_time
from gormley_vision.data.images import Conversion
from gormley_vision.data.spatial import convert
from gormley_vision.data.targets import KINDS, Targets, halves, open_targets
from gormley_vision.errors import UserError
from gormley_vision.files import user_path

# Common names of folders of splits; as classes, two levels above images, they are a mistake.
SPLIT_NAMES = ("dev", "eval", "test", "testing", "train", "training", "val", "valid", "validation")

_log = logging.getLogger(__name__)


class FolderSource:
    """Images decoded from files at each read, each with its label and its target, if the set has them."""

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        labels: np.ndarray | None,
        class_names: tuple[str, ...],
        conversion: Conversion,
        targets: Targets | None = None,
        side_by_side: bool = False,
    ) -> None:
        self.class_names = class_names
        self.features: dict[str, Feature] = {"image": conversion.feature, **label_feature(class_names)}
        self.labels = labels
        self._root = root
        self._files = files
        self._conversion = conversion
        # Paths relative to the root: a folder that was moved keeps its cache.
        self.identity: dict[str, Any] = {
            "source": "folder",
            "classes": class_names,
            "files": [(file, *size_and_time(root / file)) for file in files],
            "decode": conversion.identity,
        }
        self._targets = targets
        self._side_by_side = side_by_side
        if side_by_side:
            self.features["target"] = conversion.feature
            self.identity["target"] = ["right half"]
        if targets is not None:
            self.features["target"] = targets.feature
            self.identity["files"] += [
                (f"targets/{file}", *size_and_time(targets.root / file)) for file in targets.files
            ]
            self.identity["target"] = [targets.feature.kind, *targets.feature.class_names]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        path = self._root / self._files[index]
        example: dict[str, Any] = {"image": decode_file(path, self._conversion.max_megapixels)}
        if self.labels is not None:
            example["label"] = self.labels[index]
        if self._side_by_side:
            example["image"], example["target"] = halves(example["image"], path)
        elif self._targets is not None:
            example["target"] = self._targets.read(index, self._conversion.max_megapixels)
        try:
            return convert(example, self.features, self._conversion)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def open_folder(data: Mapping[str, Any]) -> FolderSource:
    """Open `data.path/split`, or `data.path` if it has no such subfolder.

    Images are directly inside (unlabelled), or in one subfolder per class, at any depth in it; classes and files
    are sorted by name, so that the order is the same on every machine. Files that Pillow cannot decode are left out
    with one warning that counts them; hidden and system files are left out silently.

    If `data.targets` names a second folder, each image has a `target` from it, a label map or an image, depending on
    `data.target_kind`; see `targets.open_targets`. With `data.side_by_side` it is the right half of the picture itself,
    and the image the left one.

    Raises:
        UserError: there is no such folder or split, no images, or images both inside and in subfolders.
    """
    path, split, conversion = data["path"], data["split"], Conversion.of(data)
    if not path:
        raise UserError("data.source='folder' needs a folder of images: --config.data.path=FOLDER")
    root = user_path(path)
    if not root.is_dir():
        raise UserError(f"no folder {root.absolute()}: set --config.data.path=FOLDER")
    has_split = bool(split) and (root / split).is_dir()
    if not has_split and split not in ("", "train"):
        raise UserError(
            f"{root} has no subfolder {split!r}. A folder without one for each split is one split, 'train': "
            "--config.data.split=train"
        )
    root = root / split if has_split else root
    listing = list_folder(root)
    _check_folders(root, listing)
    if split and not has_split:
        _check_classes_are_not_splits(root, listing)
    if left_out := listing.describe_left_out():
        _log.warning("%s: %s", root, left_out)
    files = listing.images or [f"{name}/{image}" for name, images in listing.by_class.items() for image in images]
    targets, side_by_side = None, data.get("side_by_side", False)
    if data["targets"] and side_by_side:
        raise UserError("data.side_by_side has targets in the pictures themselves: --config.data.targets=''")
    if data["targets"]:
        check_choice("data.target_kind", data["target_kind"], KINDS)
        targets = open_targets(data["targets"], data["target_kind"], split, files, conversion.feature)
    if listing.images:
        return FolderSource(root, files, None, (), conversion, targets, side_by_side)
    labels = np.repeat(np.arange(len(listing.by_class)), [len(images) for images in listing.by_class.values()])
    return FolderSource(root, files, labels, tuple(listing.by_class), conversion, targets, side_by_side)


def _check_folders(root: Path, listing: Listing) -> None:
    """Refuse a folder without images, with images both at its top and below, or with a class without any."""
    full = [name for name, images in listing.by_class.items() if images]
    if listing.images and full:
        inside = sum(map(len, listing.by_class.values()))
        raise UserError(
            f"{root} has {len(listing.images)} images at its top and {inside} in subfolders "
            f"({', '.join(full)}): move one of these away"
        )
    if not listing.images and not full:
        within = f" Its subfolders are: {', '.join(list(listing.by_class)[:10])}." if listing.by_class else ""
        found = f" Read, but {left_out}." if (left_out := listing.describe_left_out()) else ""
        raise UserError(
            f"no images in {root} or below it (.jpg, .png, .webp, .gif, .bmp, .tiff and others that Pillow decodes)."
            f"{within}{found} "
            "Set --config.data.path=FOLDER or --config.data.split=SUBFOLDER"
        )
    empty = [name for name in listing.by_class if name not in full]
    if empty and not listing.images:
        raise UserError(
            f"class folders without images in {root}: {', '.join(empty[:10])}. Remove them, or point "
            "--config.data.path at the folder whose subfolders are the classes"
        )


def _check_classes_are_not_splits(root: Path, listing: Listing) -> None:
    """Refuse training/cat/1.png, unless the user has said that "training" is a class."""
    names = [name for name in listing.by_class if name.lower() in SPLIT_NAMES]
    flat = any("/" not in image for images in listing.by_class.values() for image in images)
    if names and not flat:
        raise UserError(
            f"{root} has no subfolder 'train', and its subfolders {', '.join(listing.by_class)} look like splits: "
            f"--config.data.split={names[0]}. If they are the classes: --config.data.split=''"
        )
