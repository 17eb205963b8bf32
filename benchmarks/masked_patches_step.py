"""Time what hiding patches saves: MAE's encoder by its share of visible patches, and steps of whole tasks.

    python benchmarks/masked_patches_step.py [--turns=10] [--json=results/masked_patches_step.json]

The encoder alone, forward and backward: ViT-Ti/4 on 128 images of 32 pixels, of which it reads a share of the patches.
The lower bound of a share is that of its products. Then a step of configs/vit_fashion_mnist.py, which is 1, and of
configs/masked_patches_fashion.py by SimMIM and by MAE: the COST in configs/sweeps/masked_patches_labels.py. All sides
in turn, in one process.
"""

import argparse
import shlex
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gormley_vision.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()

import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved

from gormley_vision import experiment
from gormley_vision.command_line import load_config_file
from gormley_vision.files import path_flag, write_json
from gormley_vision.models.vit import SIZES, ViT
from gormley_vision.training.environment import describe_environment, source_commit
from gormley_vision.training.task import first_state

SIZE, PATCH, BATCH = 32, 4, 128
PATCHES = (SIZE // PATCH) ** 2
SHARES = 1.0, 0.75, 0.5, 0.25
MAE = {"method": "mae", "ratio": 0.75, "normalised": True}


def encoder(share: float) -> Callable[[], None]:
    """Return a function that computes the gradient of the encoder on a share of the patches, and waits for it."""
    net = ViT(classes=0, patch_size=PATCH, pooling="gap", **SIZES["Ti"]._asdict())
    images = jax.random.normal(jax.random.key(0), (BATCH, SIZE, SIZE, 3))
    order = jnp.argsort(jax.random.uniform(jax.random.key(1), (BATCH, PATCHES)), axis=1)
    kept = order[:, : round(share * PATCHES)] if share < 1 else None
    params = jax.jit(net.init)(jax.random.key(2), images[:1])["params"]

    @jax.jit
    def gradient(params):
        def loss(params):
            tokens: Any = net.apply({"params": params}, images, True, kept=kept, as_tokens=True)
            return jnp.mean(jnp.square(tokens))

        return jax.grad(loss)(params)

    return lambda: jax.block_until_ready(gradient(params))


def products(share: float) -> float:
    """Return the multiply-adds of the encoder's products for an image, up to a factor."""
    width, depth, mlp, _ = SIZES["Ti"]
    tokens = round(share * PATCHES)
    layer = tokens * (4 * width**2 + 2 * width * mlp) + 2 * tokens**2 * width
    return depth * layer + PATCHES * PATCH**2 * 3 * width


def step(name: str, **overrides) -> Callable[[], None]:
    """Return a function that takes a step of a config's task, and waits for it."""
    config = load_config_file(str(Path(__file__).parents[1] / "configs" / f"{name}.py"))
    if overrides:
        config.masked_patches.update(overrides)
    task = experiment.make_task(config.to_dict(), experiment.described(config, tuple(map(str, range(10))), 60_000))
    rng, key, data = np.random.default_rng(0), jax.random.key(0), config.data
    shape = (1, data.batch_size, data.image_size, data.image_size, data.channels)
    batch = {"image": jax.device_put(rng.integers(0, 256, shape, np.uint8))}
    batch["label"] = jax.device_put(rng.integers(0, 10, shape[:2], np.int32))
    holder = [jax.jit(partial(first_state, task))(key)]
    compiled = jax.jit(task.train_step, donate_argnums=0)

    def run() -> None:
        holder[0], _, _ = compiled(holder[0], batch, key)
        jax.block_until_ready(holder[0])

    return run


def main() -> None:
    """Time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10, help="timed runs of each side")
    parser.add_argument("--json", type=path_flag, help="also write the figures to this file")
    options = parser.parse_args()
    seconds = interleaved({str(share): encoder(share) for share in SHARES}, options.turns, warmup=2)
    rows = []
    for share in SHARES:
        ratio = statistics.median(a / b for a, b in zip(seconds[str(share)], seconds["1.0"], strict=True))
        bound = products(share) / products(1.0)
        rows.append({"share": share, "time": round(ratio, 3), "products": round(bound, 3)})
        print(f"encoder on {share:.0%} of the patches: {ratio:.3f} of the time of all; its products {bound:.3f}")
    sides = {
        "classifier": step("vit_fashion_mnist"),
        "SimMIM": step("masked_patches_fashion"),
        "MAE": step("masked_patches_fashion", **MAE),
    }
    seconds = interleaved(sides, options.turns, warmup=2)
    steps = {
        name: round(statistics.median(a / b for a, b in zip(times, seconds["classifier"], strict=True)), 3)
        for name, times in seconds.items()
    }
    for name, ratio in steps.items():
        print(f"a step of {name}: {ratio:.3f} of the classifier's, median {statistics.median(seconds[name]):.4f} s")
    if options.json:
        environment = describe_environment(jax.make_mesh((1,), ("data",)))
        figures = {"encoder": rows, "steps": steps, "turns": options.turns, "environment": environment}
        command = shlex.join(["python", *sys.argv])
        write_json(options.json, {"commands": [command], "commit": source_commit(), **figures})


if __name__ == "__main__":
    main()
