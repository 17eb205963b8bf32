"""docs/first_hour.ipynb runs from top to bottom, and what it shows is what it says."""

import base64
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
NEEDS = ("nbclient", "ipykernel", "matplotlib")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDS), reason='pip install -e ".[notebook]"'
    ),
    # zmq and jupyter_client warn of themselves.
    pytest.mark.filterwarnings("default"),
]


def test_the_notebook_runs_and_its_vit_reads_digits(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("XLA_FLAGS")
    notebook = nbformat.read(ROOT / "docs" / "first_hour.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the outputs before a commit"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = "".join(output.get("text", "") for output in outputs)
    assert "data.batch_size: 32 -> 64" in texts
    (accuracy,) = [float(line.split()[0]) for line in texts.splitlines() if line.endswith("that it has not seen")]
    assert accuracy > 80
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 4
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        assert pixels.std() > 10
