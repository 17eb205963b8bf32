"""What pre-training without labels is worth to the Fashion-MNIST ViT, at equal total time, by the number of labels.

    python scripts/sweep.py --config=configs/sweeps/masked_patches_labels.py --jobs=2

with fashion_mnist in the current folder. From scratch; or two thirds of that time for SimMIM or MAE on all images, and
one third for fine-tuning. Each with 1, 10 and 100 % of the labels and three seeds, which at 1 and 10 % have other
images. A step of SimMIM and of MAE takes COST times that of the classifier: `python benchmarks/masked_patches_step.py`.
"""

from collections.abc import Iterator
from typing import Any

from gormley_vision.sweeps.draws import run_of

BASE = "configs/vit_fashion_mnist.py"
METRIC = "eval/accuracy"
STEPS = 1800  # from scratch
COST = {"simmim": 1.05, "mae": 0.9}  # as first measured; later alone 0.99 and 0.96 (docs/vit.md)
MASKED: dict[str, dict[str, Any]] = {
    "simmim": {},
    "mae": {"masked_patches.method": "mae", "masked_patches.ratio": 0.75, "masked_patches.normalised": True},
}


def of(steps: float) -> dict[str, Any]:
    """Return overrides of a run of so many steps, evaluated at its end."""
    every = f"{round(steps)} steps"
    return {"duration": every, "eval.every": every, "log.samples_every": every}


def sweep() -> Iterator[dict[str, Any]]:
    """33 runs."""
    for seed in (0, 1, 2):
        starts = {}
        for method, options in MASKED.items():
            name = {"NAME": f"{method} alone", "BASE": "configs/masked_patches_fashion.py", "seed": seed}
            pretrained = name | options | of(STEPS * 2 / 3 / COST[method])
            yield pretrained
            starts[method] = {"init_from": run_of(pretrained), "classification.fresh_head": True, **of(STEPS / 3)}
        for percent in (1, 10, 100):
            part = f"train[{seed * percent}%:{(seed + 1) * percent}%]" if percent < 100 else "train"
            for arm, overrides in {"scratch": of(STEPS), **starts}.items():
                yield overrides | {"NAME": arm, "data.split": part, "seed": seed}
