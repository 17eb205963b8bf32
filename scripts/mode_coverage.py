"""Count the modes that a GAN's samples reach: of a run on `ring`, or on `stacked_mnist`.

    python scripts/mode_coverage.py --workdir runs/ring2d
    python scripts/mode_coverage.py --workdir runs/games/*/ --judge=judge.npz --out=modes.json

Prints a JSON line for each run, and writes all of them to a file if one is named. For the ring: how many of the 8
Gaussians have a sample within 3 standard deviations, and the share of samples there. For stacked digits a classifier
(scripts/digit_judge.py) tells the three digits of each of 26,000 samples (Che et al. 2016, arXiv:1612.02136, section
3.2): how many of the 1,000 modes there are, and KL(samples || uniform), whose value for 26,000 samples of a uniform
distribution is 0.019.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from gormley_vision.config import run_config
from gormley_vision.errors import UserError, reported
from gormley_vision.files import path_flag, refuse_unwritable, write_json


def ring(points: Any) -> dict[str, Any]:
    """Return the figures of points [n, 2]."""
    from gormley_vision.data.gan_sources import DEVIATION, ring_centres
    from gormley_vision.metrics.modes import mode_counts, near_centres, reverse_kl

    nearest, near = near_centres(points, ring_centres(), DEVIATION)
    counts = mode_counts(nearest[near], 8)
    return {
        "modes": int((counts > 0).sum()),
        "near": round(float(near.mean()), 4),
        "reverse_kl": round(reverse_kl(counts), 4) if near.any() else None,
    }


def stacked(images: Any, classes: Any) -> dict[str, Any]:
    """Return the figures of images [n, 28, 28, 3] in [0, 1], by a classifier of digits."""
    import numpy as np

    from gormley_vision.metrics.modes import mode_counts, reverse_kl

    labels = sum(classes(images[..., channel, None]) * 10 ** (2 - channel) for channel in range(3))
    counts = mode_counts(np.asarray(labels), 1000)
    return {"modes": int((counts > 0).sum()), "reverse_kl": round(reverse_kl(counts), 4)}


def figures(workdir: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Sample from a run, and return its figures with what they depend on."""
    import numpy as np

    from gormley_vision.samples import Pictures, Points, to_uint8
    from gormley_vision.sampling import restore, sample

    run = restore(workdir, options.step)
    source = run.config["data"]["source"]
    num = options.num or (10_000 if source == "ring" else 26_000)
    samples = sample(run, num=num, seed=options.seed, raw=options.raw)
    found: dict[str, Any]
    if isinstance(samples, Points):
        found = ring(samples.values)
    else:
        from digit_judge import judge

        assert isinstance(samples, Pictures)
        classes, accuracy = judge(options.judge)
        images = to_uint8(samples.images) / np.float32(255)
        found = {**stacked(images, classes), "judge_accuracy": round(accuracy, 4)}
    how = {"step": run.step, "samples": num, "sampling_seed": options.seed, "averaged": not options.raw}
    return {"run": workdir.name, "training_seed": run.config["seed"], **found, **how}


def main() -> None:
    """Sample and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=path_flag, nargs="+", help="runs on ring or stacked_mnist")
    parser.add_argument("--num", type=int, default=0, help="samples (default: 10000 of a ring, 26000 of digits)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest one)")
    parser.add_argument("--raw", action="store_true", help="use the generator itself, not its moving average")
    parser.add_argument(
        "--judge", type=path_flag, help="file of the classifier's weights: read, or trained and written"
    )
    parser.add_argument("--out", type=path_flag, help="also write the figures to this JSON file")
    options = parser.parse_args()
    if options.out:
        refuse_unwritable(options.out)
    from gormley_vision.run import start_jax

    start_jax()
    for workdir in options.workdir:  # all of them before any is sampled
        data = run_config(workdir)["data"]
        if data["source"] not in ("ring", "stacked_mnist"):
            raise UserError(f"{workdir}: its data are {data['source']}: pass runs on ring or stacked_mnist")
        if data["source"] == "stacked_mnist" and data["image_size"] != 28:
            raise UserError(
                f"{workdir}: the classifier reads digits of 28 pixels: train with --config.data.image_size=28"
            )
    found = []
    for workdir in options.workdir:
        found.append(figures(workdir, options))
        print(json.dumps(found[-1]), flush=True)
    if options.out:
        import jax

        from gormley_vision.training.environment import describe_environment, source_commit

        command = shlex.join(["python", *sys.argv])
        write_json(
            options.out,
            {
                "commands": [command],
                "environment": describe_environment(jax.make_mesh((1,), ("data",))),
                "commit": source_commit(),
                "runs": found,
            },
        )


if __name__ == "__main__":
    with reported():
        main()
