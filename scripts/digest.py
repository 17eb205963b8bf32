"""Print one SHA-256 over the full train state of a run's checkpoint: parameters, optimizers, statistics, EMA.

    python scripts/digest.py --workdir=RUN [--step=N]

Two runs with the same digest are in the same state, bit by bit.
"""

import argparse

from gormley_vision.errors import UserError, reported
from gormley_vision.files import path_flag


def main() -> None:
    """Find the checkpoint, verify it, hash it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=path_flag, help="the run's folder")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest complete one)")
    options = parser.parse_args()
    from gormley_vision.run import start_jax
    from gormley_vision.training import checkpoints

    start_jax()
    folder = options.workdir / "checkpoints"
    step = checkpoints.newest_complete(folder, options.step)
    if step is None or options.step not in (None, step):
        raise UserError(f"no such complete checkpoint in {folder} (it has: {checkpoints.steps_of(folder)})")
    print(f"{checkpoints.digest(folder / str(step))}  step {step}")


if __name__ == "__main__":
    with reported():
        main()
