"""What an example is: named arrays, each described by a feature; and what a task needs of a data set.

Coordinates are continuous: pixel i covers [i, i + 1), so that a picture of W pixels reaches from 0 to W.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gormley_vision.errors import UserError

# What each kind is, by the shape of one example.
KINDS = {
    "image": "pixels, [H, W, C]",
    "label": "a class, [] or [K]",
    "label_map": "a class for each pixel, [H, W]",
    "boxes": "x0, y0, x1, y1 in pixels, [K, 4]",
    "points": "x, y in pixels, [K, 2]",
    "mask": "which of the K rows of another feature are there, bool [K]",
    "tokens": "integers in a row, [T]",
    "vector": "numbers without a place, any shape",
}
# What jax keeps as it is: of 64 bits it would cut 32 off without a word.
DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32")
# Names that batches give to arrays of their own.
RESERVED = ("index", "mask")
# What to type for a feature that a data set lacks, by kind.
_ADVICE = {
    "image": "choose pictures, as with --config.data.source=folder --config.data.path=FOLDER",
    "label": "--config.data.path=FOLDER with a subfolder for each class, or an .npz file with an array of labels",
    "label_map": "--config.data.source=folder --config.data.targets=FOLDER_OF_LABEL_MAPS",
    "tokens": "choose text: --config.data.source=text --config.data.path=FILE",
}
_OTHER_ADVICE = "choose another data set, or a module of your own: --config.data.source=SOURCE"

Example = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Feature:
    """One named array of every example.

    Attributes:
      kind: a key of `KINDS`.
      shape: of one example.
      dtype: one of `DTYPES`.
      class_names: of a label or a label map, class by class; () where classes have no names.
      mask: of what has K rows, the feature of kind mask that says which are there; "" where all are. Rows that are not
        there only fill up, and count for nothing.
      flip_pairs: of points, rows that change places where the picture is mirrored, as a left and a right eye do.
      fill: of a label map, the class of what lies outside the picture.

    Raises:
      ValueError: an unknown kind or dtype, or an empty shape.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...] = ()
    mask: str = ""
    flip_pairs: tuple[tuple[int, int], ...] = ()
    fill: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.dtype not in DTYPES or any(size < 1 for size in self.shape):
            raise ValueError(
                f"{self}: kinds are {', '.join(KINDS)}, dtypes {', '.join(DTYPES)}, and no size of a shape is 0"
            )

    def __str__(self) -> str:
        """As in "image uint8 [28, 28, 1]"."""
        return f"{self.kind} {self.dtype} {list(self.shape)}"


Features = Mapping[str, Feature]


@dataclasses.dataclass(frozen=True)
class Description:
    """What a task is made for: the features of a data set, and its length in examples."""

    features: Features
    length: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of examples; () when unlabelled."""
        return class_names_of(self.features)


def label_feature(class_names: tuple[str, ...]) -> dict[str, Feature]:
    """{"label": one class an example}; {} where there are no classes."""
    return {"label": Feature("label", (), "int32", class_names)} if class_names else {}


def class_label(features: Features) -> str:
    """Name of the feature that says which class an example is of: "label", or else the first like it; "" for none."""
    names = [name for name, feature in features.items() if feature.kind == "label" and not feature.shape]
    return "label" if "label" in names else next(iter(names), "")


def class_names_of(features: Features) -> tuple[str, ...]:
    """Names of the classes of examples; () when unlabelled."""
    name = class_label(features)
    return features[name].class_names if name else ()


def check_features(features: Features, needs: Mapping[str, str]) -> None:
    """Pass where a data set has the features that a task needs, by names that files and batches can have.

    Args:
      features: what the data set offers.
      needs: {name: kind}.

    Raises:
      UserError: the first that is missing or of another kind, what there is, and what to type; or a name at fault.
    """
    for name in features:
        if not name.isidentifier() or name in RESERVED:
            raise UserError(
                f"a feature of the data set is named {name!r}: name it with letters, digits and _, "
                f"and not {' or '.join(RESERVED)}"
            )
        _check_rows(name, features)
    for name, kind in needs.items():
        if name not in features or features[name].kind != kind:
            raise UserError(
                f"this task needs the feature {name!r} of kind {kind} ({KINDS[kind]}), and the data set offers "
                f"{listing(features)}: {_ADVICE.get(kind, _OTHER_ADVICE)}"
            )


def check_labels(labels: np.ndarray, features: Features) -> None:
    """Pass where each label has a name, or no class has one.

    Raises:
      UserError: a label without one; a loss would take it for no class at all.
    """
    names = class_names_of(features)
    if names and len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(
            f"the labels of the data set are {labels.min()} to {labels.max()}, and it names {len(names)} classes, "
            f"0 to {len(names) - 1}: correct its labels or its class_names"
        )


def _check_rows(name: str, features: Features) -> None:
    feature = features[name]
    mask = features.get(feature.mask)
    if feature.mask and (mask is None or mask.kind != "mask" or mask.shape != feature.shape[:1]):
        raise UserError(
            f"the feature {name!r} ({feature}) names {feature.mask!r} as its mask, and the data set has "
            f"{listing(features)}: give it a mask bool {list(feature.shape[:1])}"
        )
    if not feature.flip_pairs:
        return
    if feature.kind != "points" or max(map(max, feature.flip_pairs)) >= feature.shape[0]:
        raise UserError(f"flip_pairs={feature.flip_pairs} of {name!r} ({feature}) are no rows of points")
    shared = [other for other, f in features.items() if other != name and f.mask and f.mask == feature.mask]
    if shared:
        raise UserError(f"flip_pairs of {name!r} exchange rows of its mask too: {shared[0]!r} needs a mask of its own")


def checked(example: Mapping[str, Any], features: Features, index: int) -> Example:
    """The example as arrays, in the features' order.

    Raises:
      UserError: another name, shape or dtype than the features say; names the example by its index.
    """
    arrays = {name: np.asarray(example[name]) for name in features if name in example}
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if example.keys() != features.keys() or any(found[n] != (f.shape, f.dtype) for n, f in features.items()):
        has = {name: f"{np.asarray(a).dtype} {list(np.shape(a))}" for name, a in example.items()}
        raise UserError(f"example {index} of the data set is {listing(has)}; its features say {listing(features)}")
    return arrays


def listing(features: Mapping[str, Any]) -> str:
    """As in "image (image uint8 [28, 28, 1]), label (label int32 [])"."""
    return ", ".join(f"{name} ({feature})" for name, feature in features.items())


def to_json(features: Features) -> dict[str, dict[str, Any]]:
    """Plain JSON, which `from_json` reads: what is not at its default, so that a new attribute changes no SHA-256."""
    defaults = {field.name: field.default for field in dataclasses.fields(Feature)}
    described = {name: dataclasses.asdict(feature) for name, feature in features.items()}
    changed = {name: {key: v for key, v in f.items() if v != defaults[key]} for name, f in described.items()}
    return json.loads(json.dumps(changed))  # as it is read back: JSON has lists for tuples


def from_json(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Feature]:
    """What `to_json` wrote."""
    return {name: Feature(**{key: _frozen(value) for key, value in f.items()}) for name, f in described.items()}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
