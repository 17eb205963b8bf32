"""Whether shifting images by a pixel helps configs/vit_fashion_mnist.py over its 15 epochs, on held-out images.

    python scripts/sweep.py --config=configs/sweeps/fashion_shift.py --jobs=2

As configs/sweeps/fashion_recipe.py, whose 3 epochs are too short for a regulariser to pay.
"""

from gormley_vision.sweeps.draws import grid

BASE = "configs/vit_fashion_mnist.py"
FIXED = {"data.split": "train[:55000]", "eval.split": "train[55000:]"}
METRIC = "eval/accuracy"


def sweep():
    """4 runs."""
    yield from grid({"seed": [0, 1], "classification.shift": [0, 1]})
