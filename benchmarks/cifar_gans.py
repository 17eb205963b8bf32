"""Train four GANs on CIFAR-10 for an equal time on a CPU, and draw the Frechet distance over images seen.

    python benchmarks/cifar_gans.py --images=cifar10 --extractor=cifar_resnet:resnet56.npz --workdir=runs/cifar_gans

`--images` has the folders `train` and `test`. Steps are such that each run takes 10 minutes of one core of the machine
on which the rates below were measured: at so small a budget widths are far below the papers' (but DCGAN's), and the
figures say what learns fast, not what is best. Real images are those of the test split, 10,000 that no run has seen;
10,000 of the training images, measured in the same way, are the floor. A run that is done is not trained again.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from gormley_vision.errors import UserError, reported
from gormley_vision.files import path_flag, read_json, write_json
from gormley_vision.training.records import past_lines

ROOT = Path(__file__).parents[1]
SECONDS = 10 * 60  # of one core, for each run
CURVE = 2000  # samples of a point of a curve
COUNT = 10_000  # samples of a card


class Arm(NamedTuple):
    """A recipe, what of it is changed, and how many real images it read a second, on one core of an AMD EPYC."""

    config: str
    changes: dict[str, Any]
    rate: float
    step: int  # real images that a step reads


def _narrow(**net: Any) -> dict[str, Any]:
    return {f"{player}.{key}": value for player in ("generator", "discriminator") for key, value in net.items()}


ARMS = {
    "DCGAN": Arm("dcgan_cifar", {}, 186, 128),
    "SNGAN, width 32": Arm("sngan_cifar", _narrow(width=32), 197, 320),
    "R3GAN, width 48": Arm(
        "r3gan_cifar", _narrow(width=48, depth=1) | {"data.batch_size": 64, "gan.conditional": False}, 40, 128
    ),
    "ViT GAN, width 96": Arm("vitgan_cifar", _narrow(width=96, heads=3) | {"data.batch_size": 64}, 60, 128),
}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, type=path_flag, help="folder of CIFAR-10: train/ and test/")
    parser.add_argument("--extractor", required=True, help="cifar_resnet:FILE.npz (docs/metrics.md)")
    parser.add_argument("--workdir", required=True, type=path_flag, help="folder of the runs")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="which runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of each arm")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, each on a core of its own")
    parser.add_argument("--cards", type=path_flag, default=ROOT / "results/cifar_gans", help="folder of the cards")
    parser.add_argument("--picture", type=path_flag, default=ROOT / "docs/images/cifar_gans.png", help="the figure")
    return parser.parse_args()


def run(core: int, program: str, *arguments: str) -> None:
    """Run a program of this repository on one core."""
    command = ["taskset", "-c", str(core), sys.executable, program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        kind = UserError if done.returncode == 2 else RuntimeError
        raise kind(f"{' '.join(command)}\n{done.stderr}")


def slug(name: str) -> str:
    """'sngan_width_32'."""
    return name.lower().replace(",", "").replace(" ", "_")


def train(options: argparse.Namespace, name: str, seed: int, core: int) -> Path:
    """Train a run, or continue it, and write its card."""
    arm, folder = ARMS[name], options.workdir / f"{slug(name)}_seed_{seed}"
    steps = round(SECONDS * arm.rate / arm.step)
    changes = {
        "seed": seed,
        "data.source": "folder",
        "data.path": options.images,
        "duration": f"{steps} steps",
        "log.every": "20 steps",
        "log.samples_every": f"{steps // 6} steps",
        "checkpoint.every": f"{steps // 6} steps",
        "eval.extractor": options.extractor,
        "eval.split": "test",
        "eval.every": f"{steps // 6} steps",
        "eval.samples": CURVE,
        **arm.changes,
    }
    flags = [f"--config.{key}={value}" for key, value in changes.items()]
    run(core, "train.py", f"--config=configs/{arm.config}.py", f"--workdir={folder}", *flags)
    card = folder / "card.json"
    if not card.exists():
        real = ["--split=test", f"--extractor={options.extractor}", f"--num={COUNT}", f"--out={card}"]
        run(core, "scripts/evaluate.py", f"--workdir={folder}", *real)
        curve = [
            [line["step"] * arm.step, line["eval/frechet_distance"]]
            for line in past_lines(folder, steps)
            if "eval/frechet_distance" in line
        ]
        write_json(card, read_json(card) | {"name": name, "images_seen_and_frechet_distance": curve})
    print(f"{name}, seed {seed}: {read_json(card)['figures']['frechet_distance']:.3f}", flush=True)
    return card


def floor(options: argparse.Namespace) -> Path:
    """Measure training images against test images."""
    import numpy as np
    from PIL import Image

    card = options.workdir / "real" / "card.json"
    if card.exists():
        return card
    files = sorted((options.images / "train").rglob("*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(files))[:COUNT]
    images = np.stack([np.asarray(Image.open(files[i]).convert("RGB")) for i in chosen])
    card.parent.mkdir(parents=True, exist_ok=True)
    np.savez(card.with_name("images.npz"), images=images)
    flags = [f"--real={options.images}", "--split=test", f"--extractor={options.extractor}", f"--out={card}"]
    run(0, "scripts/evaluate.py", f"--samples={card.with_name('images.npz')}", *flags)
    write_json(card, read_json(card) | {"name": "training images"})
    return card


def draw(real: Path, cards: Mapping[str, list[Path]], path: Path) -> None:
    """Draw each arm's mean curve over its seeds and the range between them, and the floor as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, paths in cards.items():
        curves = np.array([read_json(path)["images_seen_and_frechet_distance"] for path in paths])  # [seeds, points, 2]
        images, distances = curves[0, :, 0], curves[:, :, 1]
        axes.plot(images, distances.mean(0), marker="o", label=name)
        axes.fill_between(images, distances.min(0), distances.max(0), alpha=0.2)
    lowest = read_json(real)["figures"]["frechet_distance_by_count"][str(CURVE)]
    axes.axhline(lowest, color="gray", linestyle=":", label="training images")
    axes.set(xscale="log", yscale="log", xlabel="real images seen", ylabel="Fréchet distance, ResNet-56 features")
    axes.set_title(f"CIFAR-10 (JPEG q75 copy), {SECONDS // 60} minutes of a core each, {CURVE:,} samples")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train, measure, draw."""
    options = parse()
    cores = sorted(os.sched_getaffinity(0))[: options.jobs]
    real = floor(options)
    free: SimpleQueue[int] = SimpleQueue()
    for core in cores:
        free.put(core)

    def on_a_free_core(seed_and_arm: tuple[int, str]) -> Path:
        (seed, name), core = seed_and_arm, free.get()
        try:
            return train(options, name, seed, core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        found = list(pool.map(on_a_free_core, product(options.seeds, options.arms)))
    run(cores[0], "scripts/compare.py", "--cards", *map(str, [real, *found]))  # refuses unlike ones
    options.cards.mkdir(parents=True, exist_ok=True)
    for card in (real, *found):
        shutil.copyfile(card, options.cards / f"{card.parent.name}.json")
    draw(real, {name: found[i :: len(options.arms)] for i, name in enumerate(options.arms)}, options.picture)


if __name__ == "__main__":
    with reported():
        main()
