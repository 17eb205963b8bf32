"""The features of an example: each describes a named array. Also checks that a data set has those of a task.

Coordinates are continuous: pixel i covers [i, i + 1), so a picture of W pixels spans 0 to W.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gormley_vision.errors import UserError

# Each kind of array, with the shape of one example.
KINDS = {
    "image": "pixels, [H, W, C]",
    "label": "a class, [] or [K]",
    "label_map": "a class for each pixel, [H, W]",
    "boxes": "x0, y0, x1, y1 in pixels, [K, 4]",
    "points": "x, y in pixels, [K, 2]",
    "mask": "which of the K rows of another feature are valid, bool [K]",
    "tokens": "integers in a row, [T]",
    "vector": "numbers without a position, any shape",
}
# Types that jax keeps: it silently converts 64 bits to 32.
DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32")
# Names of arrays that batches add.
RESERVED = ("index", "mask")
# What to type if a data set lacks a feature, by kind.
_ADVICE = {
    "image": "choose pictures, for instance --config.data.source=folder --config.data.path=FOLDER",
    "label": "--config.data.path=FOLDER with a subfolder for each class, or an .npz file with an array of labels",
    "label_map": "--config.data.source=folder --config.data.targets=FOLDER_OF_LABEL_MAPS",
    "vector": "choose points: --config.data.source=ring, or a module of your own",
    "tokens": "choose text: --config.data.source=text --config.data.path=FILE",
}
_PAIRS = "choose pairs: --config.data.targets=FOLDER with the same names, or --config.data.side_by_side=true"
_OTHER_ADVICE = "choose another data set, or a module of your own: --config.data.source=SOURCE"

Example = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Feature:
    """One named array of every example.

    Attributes:
        kind: a key of `KINDS`.
        shape: of one example.
        dtype: one of `DTYPES`.
        class_names: for a label or a label map, the names of its classes; () if they have no names.
        mask: for arrays with K rows, the feature of kind mask that marks the valid ones; "" if all are valid. The
          others are padding.
        flip_pairs: for points, rows that are exchanged when the picture is mirrored, such as a left and a right eye.
        fill: for a label map, the class of pixels outside of the picture.
        tokenizer: for tokens of text, what `tokenizers.from_saved` reads; "" if unknown.
        vocabulary: for tokens, how many there are; 0 if unknown.

    Raises:
        ValueError: the kind or the dtype is unknown, or a size is 0.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...] = ()
    mask: str = ""
    flip_pairs: tuple[tuple[int, int], ...] = ()
    fill: int = 0
    tokenizer: str = ""
    vocabulary: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.dtype not in DTYPES or any(size < 1 for size in self.shape):
            raise ValueError(
                f"{self}: kinds are {', '.join(KINDS)}, dtypes {', '.join(DTYPES)}, and no size of a shape is 0"
            )

    def __str__(self) -> str:
        """Return text such as "image uint8 [28, 28, 1]"."""
        return f"{self.kind} {self.dtype} {list(self.shape)}"


Features = Mapping[str, Feature]


@dataclasses.dataclass(frozen=True)
class Description:
    """What a task must know of a data set: its features, and its length in examples."""

    features: Features
    length: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the examples' classes; () if unlabelled."""
        return class_names_of(self.features)


def label_feature(class_names: tuple[str, ...]) -> dict[str, Feature]:
    """Return {"label": the feature of one class per example}; {} without classes."""
    return {"label": Feature("label", (), "int32", class_names)} if class_names else {}


def class_label(features: Features) -> str:
    """Return the name of the feature with an example's class: "label", or else the first of its kind; "" for none."""
    names = [name for name, feature in features.items() if feature.kind == "label" and not feature.shape]
    return "label" if "label" in names else next(iter(names), "")


def class_names_of(features: Features) -> tuple[str, ...]:
    """Return the names of the examples' classes; () if unlabelled."""
    name = class_label(features)
    return features[name].class_names if name else ()


def tokenizer_of(features: Features) -> str:
    """Return what `tokenizers.from_saved` reads, of the first feature that has it; '' if none has."""
    return next((feature.tokenizer for feature in features.values() if feature.tokenizer), "")


def check_features(features: Features, needs: Mapping[str, str]) -> None:
    """Check that a data set has the features that a task needs, with names that files and batches can use.

    Args:
        features: of the data set.
        needs: {name: kind} of the task.

    Raises:
        UserError: a feature is missing or of another kind, or has a wrong name. Names what exists and what to type.
    """
    for name in features:
        if not name.isidentifier() or name in RESERVED:
            raise UserError(
                f"a feature of the data set is named {name!r}: name it with letters, digits and _, "
                f"and not {' or '.join(RESERVED)}"
            )
        _check_rows(name, features)
    if not isinstance(needs, Mapping) or not set(needs.values()) <= KINDS.keys():
        raise UserError(
            f"needs(config) of the task returns {needs!r}: write {{name: kind}}; kinds are {', '.join(KINDS)}"
        )
    for name, kind in needs.items():
        if name not in features or features[name].kind != kind:
            second = kind == "image" and any(feature.kind == "image" for feature in features.values())
            advice = _PAIRS if second and name not in features else _ADVICE.get(kind, _OTHER_ADVICE)
            raise UserError(
                f"this task needs the feature {name!r} of kind {kind} ({KINDS[kind]}), and the data set offers "
                f"{listing(features)}: {advice}"
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
        raise UserError(f"flip_pairs={feature.flip_pairs} of {name!r} ({feature}) are not rows of points")
    shared = [other for other, f in features.items() if other != name and f.mask and f.mask == feature.mask]
    if shared:
        raise UserError(f"flip_pairs of {name!r} exchange rows of its mask too: {shared[0]!r} needs a mask of its own")


def checked(example: Mapping[str, Any], features: Features, index: int) -> Example:
    """Return the example as arrays, in the features' order.

    Raises:
        UserError: a name, shape or dtype differs from the features. Names the example's index.
    """
    arrays = {name: np.asarray(example[name]) for name in features if name in example}
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if example.keys() != features.keys() or any(found[n] != (f.shape, f.dtype) for n, f in features.items()):
        has = {name: f"{np.asarray(a).dtype} {list(np.shape(a))}" for name, a in example.items()}
        raise UserError(f"example {index} of the data set is {listing(has)}; its features say {listing(features)}")
    return arrays


def listing(features: Mapping[str, Any]) -> str:
    """Return text such as "image (image uint8 [28, 28, 1]), label (label int32 [])"."""
    return ", ".join(f"{name} ({feature})" for name, feature in features.items())


def to_json(features: Features) -> dict[str, dict[str, Any]]:
    """Return JSON for `from_json`, without defaults, so that a new attribute does not change a SHA-256."""
    defaults = {field.name: field.default for field in dataclasses.fields(Feature)}
    described = {name: dataclasses.asdict(feature) for name, feature in features.items()}
    changed = {name: {key: v for key, v in f.items() if v != defaults[key]} for name, f in described.items()}
    return json.loads(json.dumps(changed))  # JSON turns tuples into lists, as when read back


def from_json(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Feature]:
    """Return the features that `to_json` wrote."""
    return {name: Feature(**{key: _frozen(value) for key, value in f.items()}) for name, f in described.items()}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
