"""Eight Gaussians on a ring: the relativistic game with R1 and R2, ten seeds, and the one of 2014, five.

    python scripts/sweep.py --config=configs/sweeps/ring2d_games.py --workdir=runs/rings --jobs=2
    python scripts/mode_coverage.py --workdir runs/rings/*/ --out=results/ring2d_games.json

Both have the same nets, rates and steps. No figure in training tells how many modes there are: the second command does.
"""

from typing import Any

BASE = "configs/ring2d.py"
METRIC = "loss/generator"
HIGHER_IS_BETTER = False
FIXED = {"log.every": "1000 steps", "log.samples_every": "5000 steps", "checkpoint.every": "5000 steps"}


def sweep():
    """15 runs; the recipe was chosen with seed 100."""
    rates = "; ".join(
        f"{player}_optimizer.learning_rate = 0: 2e-3, 60%: 2e-3, 100%: 1e-5 cosine"
        for player in ("generator", "discriminator")
    )
    games: dict[str, dict[str, Any]] = {
        "relativistic R1 R2": {},
        "saturating": {"gan.objective": "saturating", "gan.schedules": rates},
    }
    for seed in range(10):
        for name, changes in games.items():
            if seed < 5 or not changes:
                yield {"NAME": name, "seed": seed, **changes}
