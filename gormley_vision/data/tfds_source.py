"""TensorFlow Datasets prepared as array_record, read without TensorFlow and without a network."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gormley_vision.data import slices
from gormley_vision.data.decoding import decode_bytes
from gormley_vision.data.features import Example, label_feature
from gormley_vision.data.images import Conversion
from gormley_vision.errors import UserError
from gormley_vision.files import user_path

if TYPE_CHECKING:
    from gormley_vision.data.sources import Source

# tensorflow_datasets takes 0.4 s to import, so it is only imported when used.


class TfdsSource:
    """One split of a prepared data set.

    TFDS returns encoded bytes (`SkipDecoding`), which are decoded here: without TensorFlow, its own decoder uses OpenCV
    or Pillow, whichever is installed, and the two differ in JPEG pixels.
    """

    def __init__(self, builder: Any, split: str, image_key: str, label_key: str, conversion: Conversion) -> None:
        import tensorflow_datasets as tfds

        self.class_names = tuple(builder.info.features[label_key].names) if label_key else ()
        self.features = {"image": conversion.feature, **label_feature(self.class_names)}
        self.labels = None  # each is stored in its image's record
        self._records = builder.as_data_source(
            split=split, decoders={image_key: tfds.decode.SkipDecoding()}, file_format="array_record"
        )
        self._image_key, self._label_key = image_key, label_key if self.class_names else ""
        self._conversion = conversion
        self._name = f"{builder.info.full_name} split {split!r}"
        shards = builder.info.splits[split].file_instructions
        self.identity: dict[str, Any] = {
            "source": "tfds",
            "name": builder.info.full_name,
            "split": split,
            "classes": self.class_names,
            "shards": [(Path(s.filename).name, s.skip, s.take, Path(s.filename).stat().st_size) for s in shards],
            "decode": conversion.identity,
        }

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)  # array_record raises ValueError, which does not end an iteration
        record = self._records[int(index)]
        image = decode_bytes(
            record[self._image_key],
            name=f"{self._name} example {index}",
            max_megapixels=self._conversion.max_megapixels,
        )
        example = {"image": self._conversion(image)}
        return example | {"label": np.array(record[self._label_key], np.int32)} if self._label_key else example


def open_tfds(data: Mapping[str, Any]) -> Source:
    """Open `data.name` ("cifar10", "cifar10:3.0.2", "set/config") in the TFDS data directory `data.path`.

    TFDS itself supports parts of a split. `data.path` "" means TFDS's default: the environment's TFDS_DATA_DIR, or
    ~/tensorflow_datasets. The image is the feature of type Image (if there are several, the one named
    "image"), and the label likewise the ClassLabel.

    Raises:
        UserError: the set is not prepared, or in a format without random access; the split is unknown; there is no
          image feature; or it is grey but the config's is colour. Names what to type.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    name, path, split, conversion = data["name"], data["path"], data["split"], Conversion.of(data)
    if not name:
        raise UserError("data.source='tfds' needs the name of a data set: --config.data.name=cifar10")
    data_dir = user_path(path or tfds.core.constants.DATA_DIR)
    prepare = f"python scripts/prepare_data.py {name}" + (f" --data_dir={path}" if path else "")
    try:
        # Unlike tfds.load, this only reads files: it never downloads, nor contacts a server.
        builder = read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    # Not found, or a name that TFDS cannot parse, is a ValueError; an unreadable folder is an OSError.
    except (ValueError, OSError) as error:
        raise UserError(
            f"the data set {name!r} is not prepared in {data_dir}.{_similar(name, data_dir)} "
            f"Prepare it once:\n    {prepare}\n"
            "or run one that needs no download:\n"
            "    python train.py --config=configs/dcgan_mnist.py --workdir=runs/dcgan_mnist"
        ) from error
    formats = {str(f.value) for f in (builder.info.file_format, *builder.info.alternative_file_formats) if f}
    if "array_record" not in formats:
        raise UserError(
            f"{builder.info.full_name} is prepared in {builder.data_dir} as {', '.join(sorted(formats))}, "
            f"which has no random access. Convert it in place (no download):\n    {prepare}"
        )
    image_key, label_key = _find_features(builder.info, conversion.channels)
    # TFDS shuffles examples when writing them, except for some sets, which may be sorted by class.
    sorted_part = "[" in split and builder.info.disable_shuffling
    full_split = slices.name_of(split) if sorted_part else split
    if sorted_part and "+" in full_split:
        raise UserError(
            f"{builder.info.full_name} was not shuffled when it was written, and for such a set a part of a sum "
            f"({split!r}) is not supported: --config.data.split='train[:80%]'"
        )
    _check_split(builder.info, full_split)
    try:
        source = TfdsSource(builder, full_split, image_key, label_key, conversion)
        return slices.take(source, split) if sorted_part else source
    except OSError as error:
        raise UserError(
            f"{builder.data_dir} is incomplete: {error}. Remove it and prepare it again:\n    {prepare}"
        ) from error


def _similar(name: str, data_dir: Path) -> str:
    prepared = sorted(p.name for p in data_dir.iterdir() if p.is_dir()) if data_dir.is_dir() else []
    near = difflib.get_close_matches(re.split("[:/]", name)[0], prepared, n=1)
    return f" (There is {near[0]!r}: --config.data.name={near[0]}.)" if near and near[0] != name else ""


def _check_split(info: Any, split: str) -> None:
    try:
        empty = not info.splits[split].num_examples
    # TFDS raises KeyError, ValueError or AssertionError, depending on the mistake.
    except Exception as error:
        raise UserError(
            f"{info.full_name} has no split {split!r}; it has {', '.join(sorted(info.splits))}: "
            f"--config.data.split={sorted(info.splits)[-1]}"
        ) from error
    if empty:
        raise UserError(f"the split {split!r} of {info.full_name} has no examples: --config.data.split=train")


def _find_features(info: Any, channels: int) -> tuple[str, str]:
    """Return the names of the image feature and of the label feature ("" if the set has none)."""
    import tensorflow_datasets as tfds

    features = dict(sorted(info.features.items())) if hasattr(info.features, "items") else {}
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if not images:
        raise UserError(f"{info.full_name} has no image feature; its features: {', '.join(features) or 'none'}")
    image_key, label_key = _single(info, "image", images), _single(info, "label", labels or [""])
    found = features[image_key].shape[-1]
    if found in (1, 3) and found != channels:
        kind = "grey" if found == 1 else "RGB"
        raise UserError(
            f"{info.full_name}: images are {kind}, but the config says channels={channels}: "
            f"--config.data.channels={found}"
        )
    return image_key, label_key


def _single(info: Any, usual: str, keys: list[str]) -> str:
    if len(keys) > 1 and usual not in keys:
        raise UserError(f"{info.full_name} has several {usual} features and none is named {usual!r}: {', '.join(keys)}")
    return usual if usual in keys else keys[0]
