"""Sources: data sets as random-access sequences of examples."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from gormley_vision.data import (
    array_sources,
    folder_source,
    gan_sources,
    hf_source,
    slices,
    table_source,
    text_source,
    tfds_source,
)
from gormley_vision.data.choices import check_choice
from gormley_vision.data.features import Example, Feature, Features
from gormley_vision.errors import UserError
from gormley_vision.user_code import import_module


class Source(Protocol):
    """A random-access sequence of examples; reading is safe from several threads."""

    @property
    def features(self) -> Features:
        """{name: description of that array of every example}. Does not decode examples."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by label, as in the label's feature; () if unlabelled."""

    @property
    def identity(self) -> dict[str, Any]:
        """As JSON: changes whenever the examples may have changed. Does not decode examples."""

    @property
    def labels(self) -> np.ndarray | None:
        """All labels, int [N], if they are known without reading every example; else None."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, index: int) -> Example:
        """Return {name: array of its feature's shape and dtype}, with exactly the names of `features`."""


Opener = Callable[[Mapping[str, Any]], Source]
# Each gets a config's data section, and uses some of its keys; the split is a name, never a part.
_OPENERS: dict[str, Opener] = {
    "fake": array_sources.open_fake,
    "folder": folder_source.open_folder,
    "hf": hf_source.open_hf,
    "mnist_5k": array_sources.open_mnist_5k,
    "npz": array_sources.open_npz,
    "python_paragraphs": table_source.open_python_paragraphs,
    "python_topics": text_source.open_python_topics,
    "ring": gan_sources.open_ring,
    "stacked_mnist": gan_sources.open_stacked_mnist,
    "table": table_source.open_table,
    "text": text_source.open_text,
}


def changed_files(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the files that are missing in one of two identities, or have another size or time."""
    before, now = _files(old), _files(new)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _files(identity: Mapping[str, Any]) -> dict[str, list[Any]]:
    single = [identity["file"]] if "file" in identity else []
    return {name: rest for name, *rest in [*single, *identity.get("files", []), *identity.get("shards", [])]}


def open_source(data: Mapping[str, Any]) -> Source:
    """Open a data set without decoding it.

    Args:
        data: a config's data section (docs/data.md lists the keys of each source). Used here are
          `source`: one of ours, or the dotted path of a module with a function `open_source(data)`; and
          `split`: "train", "test", ..., or a part such as "train[:55000]" or "train[80%:]" (see `slices`).

    Raises:
        UserError: a value is unknown, or the data do not exist. Names what to type. Errors in the content of
          "npz" and "mnist_5k" are raised at the first read.
    """
    source, split = data["source"], data["split"]
    if source == "tfds":  # it supports parts itself, and only reads a part's examples
        return tfds_source.open_tfds(data)
    opener = _OPENERS[source] if source in _OPENERS else _of_module(source)
    return slices.take(opener({**data, "split": slices.name_of(split)}), split)


def _of_module(path: str) -> Opener:
    """Return the function `open_source` of a user's module."""
    if "." not in path or not all(part.isidentifier() for part in path.split(".")):
        check_choice("data.source", path, [*_OPENERS, "tfds"])
    module = import_module("data.source", path, "--config.data.source=PACKAGE.MODULE, or one of ours")
    opener = getattr(module, "open_source", None)
    if not callable(opener):
        raise UserError(
            f"data.source={path!r}: {module.__file__ or path} has no function open_source(data): define one, which "
            "returns a Source (gormley_vision/data/sources.py)"
        )
    return lambda data: _checked(opener(data), path)


def _checked(source: Any, path: str) -> Source:
    """Return a user's source, if it offers all of `Source`."""
    names = ("features", "class_names", "identity", "labels", "__len__", "__getitem__")
    faults = [f"it has no {name}" for name in names if not hasattr(source, name)]
    if not faults:
        if not (isinstance(source.features, Mapping) and all(isinstance(f, Feature) for f in source.features.values())):
            faults.append("its features are not {name: Feature} (gormley_vision/data/features.py)")
        try:
            json.dumps(source.identity)
        except (TypeError, ValueError) as error:
            faults.append(f"its identity is not plain JSON ({error})")
    if faults:
        raise UserError(f"data.source={path!r}: open_source returns {type(source).__name__}: {'; '.join(faults)}")
    return source
