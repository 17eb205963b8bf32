"""The recipe of configs/vit_fashion_mnist.py, chosen on images that neither train nor test it.

    python scripts/sweep.py --config=configs/sweeps/fashion_recipe.py --jobs=2

5,000 training images are held out to choose by; the test split is not read. Optimizer and its rate, and
whether images are shifted by a pixel; 3 epochs, 2 seeds.
"""

from gormley_vision.sweeps.draws import grid, zipped

BASE = "configs/vit_fashion_mnist.py"
FIXED = {"data.split": "train[:55000]", "eval.split": "train[55000:]", "duration": "3 epochs"}
METRIC = "eval/accuracy"


def sweep():
    """12 runs."""
    names, rates = ["muon", "adam", "adam"], [3e-3, 3e-3, 1e-3]
    for optimizer in zipped({"optimizer.name": names, "optimizer.learning_rate": rates}):
        for rest in grid({"classification.shift": [0, 1], "seed": [0, 1]}):
            yield optimizer | rest
