import io
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from gormley_vision.data.features import Feature


@pytest.fixture
def settings(tmp_path):
    """A config's data section, of 4,096 fake images."""
    return {
        "source": "fake",
        "name": "",
        "path": "",
        "targets": "",
        "target_kind": "label_map",
        "context": 256,
        "packing": False,
        "split": "train",
        "image_size": 8,
        "channels": 3,
        "crop": "center",
        "crop_fraction": 0.875,
        "resize_filter": "box",
        "max_megapixels": 178,
        "batch_size": 16,
        "placement": "host",
        "workers": 2,
        "cache_dir": str(tmp_path / "cache"),
    }


@pytest.fixture
def png():
    """A function that makes the bytes of a small grey PNG whose pixels all have one value."""

    def make(value: int, size: int = 6) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.full((size, size), value, np.uint8)).save(buffer, "png")
        return buffer.getvalue()

    return make


class Everything:
    """Ten examples with a feature of each kind, whose arrays follow from the index."""

    features = MappingProxyType(
        {
            "photo": Feature("image", (4, 4, 3), "uint8"),
            "classes": Feature("label_map", (4, 4), "int16", ("sky", "tree")),
            "boxes": Feature("boxes", (2, 4), "float32"),
            "there": Feature("mask", (2,), "bool"),
            "corners": Feature("points", (3, 2), "float32"),
            "text": Feature("tokens", (5,), "uint8"),
            "depth": Feature("vector", (), "float16"),
            "species": Feature("label", (), "int32", ("a", "b")),
        }
    )
    class_names = ("a", "b")
    labels = None

    def __init__(self):
        self.identity = {"source": "everything"}

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {
            name: np.full(f.shape, (index + i) % 2 if f.kind == "label" else index + i, f.dtype)
            for i, (name, f) in enumerate(self.features.items())
        }


@pytest.fixture
def everything():
    """A class of such sources."""
    return type("Some", (Everything,), {})
