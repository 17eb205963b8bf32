"""Sources: data sets as random-access sequences of converted images and labels."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from gormley_vision.data import array_sources, folder_source, slices, tfds_source
from gormley_vision.data.choices import check_choice
from gormley_vision.data.decoding import MAX_MEGAPIXELS
from gormley_vision.data.images import CROP_FRACTION, Conversion


class Source(Protocol):
    """A random-access sequence of examples; reading is safe from several threads."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, label by label; () when unlabelled."""

    @property
    def identity(self) -> dict[str, Any]:
        """JSON-able: changes whenever the examples may have changed. Costs no decoding."""

    @property
    def labels(self) -> np.ndarray | None:
        """All labels, int [N], where they are known without reading every example; else None."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Image, uint8 [image_size, image_size, channels], and label, -1 when unlabelled."""


_OPENERS: dict[str, Callable[[str, str, str, Conversion], Source]] = {
    "fake": array_sources.open_fake,
    "folder": folder_source.open_folder,
    "mnist_5k": array_sources.open_mnist_5k,
    "npz": array_sources.open_npz,
    "tfds": tfds_source.open_tfds,
}


def changed_files(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Files that one of two identities lacks, or knows with another size or time."""
    before, now = _files(old), _files(new)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _files(identity: Mapping[str, Any]) -> dict[str, list[Any]]:
    lone = [identity["file"]] if "file" in identity else []
    return {name: rest for name, *rest in [*lone, *identity.get("files", []), *identity.get("shards", [])]}


def open_source(
    *,
    source: str,
    name: str,
    path: str,
    split: str,
    image_size: int,
    channels: int,
    crop: str,
    resize_filter: str,
    crop_fraction: float = CROP_FRACTION,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Source:
    """Opens a data set without decoding it.

    Args:
      source: where the examples come from: "tfds", "folder", "npz", "mnist_5k" or "fake".
      name: the TFDS name, as in "cifar10" or "cifar10:3.0.2"; other sources do not read it.
      path: "tfds": the data directory ("" for TFDS's own); "folder": the folder of images; "npz": the file,
        or a folder of `<split>.npz`; other sources do not read it.
      split: "train", "test", ..., or a part as "train[:55000]" or "train[80%:]" (see `slices`); a
        source that has no such split refuses it.
      image_size: side of the images, in pixels.
      channels: 1 (grey) or 3 (RGB).
      crop: "center", "none" or "resize_center"; see `images.to_uint8`.
      resize_filter: a key of `images.RESIZE_FILTERS`.
      crop_fraction: for "resize_center"; see `images.to_uint8`.
      max_megapixels: see `decoding.decode_bytes`; "npz", "mnist_5k" and "fake" do not read it.

    Raises:
      UserError: an unknown value, or data that are not there; says what to type. What only shows in the
        content ("npz", "mnist_5k") is raised at the first read.
    """
    check_choice("data.source", source, _OPENERS)
    conversion = Conversion(image_size, channels, crop, resize_filter, crop_fraction, max_megapixels)
    if source == "tfds":  # it slices by itself, and reads the examples of a part alone
        return tfds_source.open_tfds(name, path, split, conversion)
    return slices.take(_OPENERS[source](name, path, slices.name_of(split), conversion), split)
