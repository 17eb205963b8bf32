"""Measure how often a classifier of real digits agrees with the labels given to a conditional GAN.

    python scripts/label_agreement.py --workdir=runs/cdcgan_mnist [--num=2000] [--seed=0] [--raw] [--judge=judge.npz]

The classifier is that of scripts/digit_judge.py; its own accuracy on held-out digits is printed beside, since it limits
the agreement. The first figures here, of results/cdcgan_mnist.json, were by a support vector classifier of 95.4 %.
"""

import argparse

from gormley_vision.errors import UserError, reported
from gormley_vision.files import path_flag


def main() -> None:
    """Fit the classifier, sample, compare; print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=path_flag, help="a conditional run on mnist_5k")
    parser.add_argument("--num", type=int, default=1000, help="number of samples, cycling through the classes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--raw", action="store_true", help="use the generator itself, not its moving average")
    parser.add_argument(
        "--judge", type=path_flag, help="file of the classifier's weights: read, or trained and written"
    )
    options = parser.parse_args()
    if options.num < 1:
        raise UserError(f"--num={options.num}: at least 1")
    import json

    import numpy as np
    from digit_judge import judge

    from gormley_vision.run import start_jax
    from gormley_vision.samples import Pictures, to_uint8
    from gormley_vision.sampling import restore, sample

    start_jax()
    run = restore(options.workdir)
    if not set(run.class_names) <= set("0123456789"):
        raise UserError(f"the classifier only knows digits; this run's classes are {', '.join(run.class_names[:10])}")
    data = run.config["data"]
    if run.config["gan"]["example"] != "image" or (data["image_size"], data["channels"]) != (28, 1):
        raise UserError("the classifier reads grey digits of 28 pixels: pass the --workdir of a run that makes these")
    pictures = sample(run, num=options.num, seed=options.seed, raw=options.raw)
    if not isinstance(pictures, Pictures) or pictures.labels is None:
        raise UserError("this needs a conditional run: pass the --workdir of one, such as of configs/cdcgan_mnist.py")
    asked = np.array([int(name) for name in run.class_names])[pictures.labels]
    classes, accuracy = judge(options.judge)
    seen = classes(to_uint8(pictures.images) / np.float32(255))
    by_class = [round(float(np.mean(seen[asked == c] == c)), 3) for c in sorted(set(asked.tolist()))]
    result = {
        "agreement": round(float(np.mean(seen == asked)), 4),
        "by_class": by_class,
        "judge_accuracy_on_held_out_digits": round(float(accuracy), 4),
        "step": run.step,
        "samples": options.num,
        "seed": options.seed,
        "averaged": not options.raw,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    with reported():
        main()
