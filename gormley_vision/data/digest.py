"""SHA-256 of a data set's decoded examples, which identifies it in checkpoints."""

import hashlib
import json

import numpy as np

from gormley_vision.data.features import Features, class_names_of, to_json


class Digest:
    """Hashes the arrays of all examples in order, chunk by chunk, feature by feature.

    The sum does not depend on the chunks: it is of the values' little-endian bytes, and of names, kinds and shapes.
    """

    def __init__(self, length: int, features: Features) -> None:
        self._length, self._features = length, features
        self._parts = {name: hashlib.sha256() for name in features}
        # A set of images, labelled or not, has the sum that older checkpoints contain: of a header, then all images,
        # then all labels.
        self._labels: list[bytes] | None = [] if _is_only_images(features) else None
        if self._labels is not None:
            header = [length, *features["image"].shape, class_names_of(features)]
            self._parts["image"].update(json.dumps(header).encode())

    def update(self, name: str, chunk: np.ndarray) -> None:
        """Add the next examples' arrays of one feature, [n, *shape]."""
        data = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))
        if self._labels is not None and name == "label":
            self._labels.append(data.tobytes())
        else:
            self._parts[name].update(data.data)

    def hexdigest(self) -> str:
        """Return the sum, in hexadecimal."""
        if self._labels is not None:
            total = self._parts["image"].copy()
            unlabelled = np.full(0 if "label" in self._features else self._length, -1, "<i4")
            total.update(b"".join([*self._labels, unlabelled.tobytes()]))
            return total.hexdigest()
        parts = {name: part.hexdigest() for name, part in self._parts.items()}
        text = json.dumps([self._length, to_json(self._features), parts], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _is_only_images(features: Features) -> bool:
    """Return whether examples are an image and perhaps its class, as all were in earlier versions."""
    found = {name: (feature.kind, feature.dtype, len(feature.shape)) for name, feature in features.items()}
    image, label = ("image", "uint8", 3), ("label", "int32", 0)
    return found in ({"image": image}, {"image": image, "label": label})
