"""Time whole training steps of image to image here and in PyTorch eager, interleaved in one process.

    pip install -e ".[bench]"
    python benchmarks/image_to_image_step.py [--steps pix2pix_1 pix2pix_4 edsr_16] [--turns=5]
        [--json=results/image_to_image_step.json]

pix2pix_1 and pix2pix_4 are configs/pix2pix_camvid.py on 1 and 4 pairs of photographs of 128 pixels (U-Net of width 64
and 7 levels, 70-pixel PatchGAN, instance norm, cross-entropy + 100 L1, Adam); edsr_16 is configs/sr_edsr_x2.py (4
blocks of 32 channels, 16 targets of 64 pixels, L1, Adam), all in float32. Ours is the loop's own compiled step, with
its norms, checks and averages; pix2pix_peer.py says what the peer does. Both begin with uint8 pictures.

Sides take turns in going first. Prints seconds per step and ratios, alone and while another process copies memory.
Like train.py, the program asks for huge pages, from which both sides gain; `GLIBC_TUNABLES=glibc.malloc.hugetlb=0`
leaves them out.
"""

import argparse
import importlib.metadata
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gormley_vision.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()

import jax
import jax.numpy as jnp
import numpy as np
import torch
from pix2pix_peer import torch_step
from timing import copying, interleaved, report

from gormley_vision import experiment
from gormley_vision.command_line import load_config_file
from gormley_vision.config import validate
from gormley_vision.files import path_flag, write_json
from gormley_vision.training.environment import describe_environment, source_commit
from gormley_vision.training.loop import Step
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import first_state

ROOT = Path(__file__).parents[1]
_PHOTOGRAPHS = {"data.targets": "photographs", "data.target_kind": "image"}
# A step's file in configs/, and what is changed of it.
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "pix2pix_1": ("pix2pix_camvid", _PHOTOGRAPHS),
    "pix2pix_4": ("pix2pix_camvid", _PHOTOGRAPHS | {"data.batch_size": 4}),
    "edsr_16": ("sr_edsr_x2", {}),
}
PICTURES = 64
OURS, PEER = "gormley_vision", "torch"
CONDITIONS = {"alone": False, "another process copies memory": True}


def configured(name: str, **changes: Any) -> Any:
    """Return a step's config; `changes` are by key, with __ for the point."""
    file, overrides = STEPS[name]
    config = load_config_file(str(ROOT / "configs" / f"{file}.py"))
    given = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict({"mesh.data": 1} | overrides | given)
    validate(config.to_dict())
    return config


def made_up(config: Any) -> dict[str, np.ndarray]:
    """Return made-up pictures, uint8 [N, H, W, C] by feature."""
    rng, data = np.random.default_rng(0), experiment.described(config, (), PICTURES)
    return {name: rng.integers(0, 256, (PICTURES, *x.shape), np.uint8) for name, x in data.features.items()}


def our_step(config: Any, pictures: Mapping[str, np.ndarray]) -> Callable[[], None]:
    """Return the loop's own compiled step (to the end) on minibatches drawn from pictures, which lie on the device."""
    task = experiment.make_task(config.to_dict(), experiment.described(config, (), PICTURES))
    shardings = Shardings(make_mesh(config.mesh, config.data.batch_size), ())

    def fetch(resident: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {name: jnp.take(x, batch["index"], axis=0, mode="clip") for name, x in resident.items()}

    step = Step(task, fetch, shardings.replicated, shardings)
    key, resident = jax.device_put((jax.random.key(0), dict(pictures)), shardings.replicated)
    holder = [jax.jit(partial(first_state, task), out_shardings=shardings.replicated)(key)]
    rng = np.random.default_rng(1)

    def run() -> None:
        index = rng.integers(0, PICTURES, (1, config.data.batch_size), np.int32)
        holder[0], _, _ = step(holder[0], resident, jax.device_put({"index": index}, shardings.batch), key)
        jax.block_until_ready(holder[0])

    return run


def measured(name: str, turns: int) -> dict[str, Any]:
    """Time a step's sides in both conditions; print and return the figures."""
    config = configured(name)
    pictures = made_up(config)
    sides = {OURS: our_step(config, pictures), PEER: torch_step(config, pictures)}
    figures: dict[str, Any] = {}
    for condition, busy in CONDITIONS.items():
        print(f"\n{name}, {condition}")
        with copying(busy):
            figures[condition] = report(interleaved(sides, turns, warmup=1 if busy else 2), {PEER: OURS})
    return figures


def main() -> None:
    """Measure the steps one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="which")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each side in each condition")
    parser.add_argument("--json", type=path_flag, help="also write the figures to this file, after each of them")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    figures: dict[str, Any] = {
        "commands": [shlex.join(["python", *sys.argv])],
        "environment": describe_environment(jax.make_mesh((1,), ("data",))),
        "commit": source_commit(),
        "torch": importlib.metadata.version("torch"),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "turns": options.turns,
        "steps": {},
    }
    for name in options.steps:
        figures["steps"][name] = measured(name, options.turns)
        jax.clear_caches()  # a compiled step holds its buffers
        if options.json:
            write_json(options.json, figures)


if __name__ == "__main__":
    main()
