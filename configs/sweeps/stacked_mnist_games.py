"""Which game reaches all 1,000 modes of Stacked MNIST: relativistic or not, with R1 and R2 or R1 alone; 3 seeds.

    python scripts/sweep.py --config=configs/sweeps/stacked_mnist_games.py --workdir=runs/games --jobs=2
    python scripts/mode_coverage.py --workdir runs/games/*/ --judge=judge.npz --out=results/stacked_mnist_games.json

The question of table 2 of Huang et al. 2025 (arXiv:2501.05441). No figure in training tells: the second command does.
"""

from typing import Any

BASE = "configs/stacked_mnist.py"
METRIC = "loss/generator"
HIGHER_IS_BETTER = False


def sweep():
    """12 runs."""
    games: dict[str, dict[str, Any]] = {
        "relativistic R1 R2": {},
        "non-saturating R1 R2": {"gan.objective": "non_saturating"},
        "relativistic R1": {"gan.r2": 0.0},
        "non-saturating R1": {"gan.objective": "non_saturating", "gan.r2": 0.0},
    }
    for seed in (1, 2, 3):  # the recipe was chosen with seed 0
        for name, changes in games.items():
            yield {"NAME": name, "seed": seed, **changes}
