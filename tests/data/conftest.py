import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def settings(tmp_path):
    """A config's data section as keyword arguments for `open_batches`, reading 4,096 fake images."""
    return {
        "seed": 7,
        "minibatches": 1,
        "source": "fake",
        "name": "",
        "path": "",
        "split": "train",
        "image_size": 8,
        "channels": 3,
        "crop": "center",
        "resize_filter": "box",
        "batch_size": 16,
        "placement": "host",
        "workers": 2,
        "cache_dir": str(tmp_path / "cache"),
    }


@pytest.fixture
def source_settings(settings):
    """The same for `open_source`."""
    names = ("source", "name", "path", "split", "image_size", "channels", "crop", "resize_filter")
    return {name: settings[name] for name in names}


@pytest.fixture
def png():
    """A function that makes the bytes of a small grey PNG whose pixels all have one value."""

    def make(value: int, size: int = 6) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.full((size, size), value, np.uint8)).save(buffer, "png")
        return buffer.getvalue()

    return make
