"""Time each GAN recipe's whole training step here and in PyTorch eager, interleaved in one process.

    pip install -e ".[bench]"
    python benchmarks/gan_recipes.py [--recipes stacked_mnist wgan_gp_cifar ...] [--turns=5] [--json=FILE]

A recipe is a file in configs/ with made-up images of its published size; both sides read the same config (gan_peers.py
says what the peer does). As published, but for two that would take minutes here: r3gan_cifar has 96 channels rather
than 768, batch 32, no augmentation and no labels, and vitgan_cifar 192 channels, depth 2, batch 32 and no augmentation.

Where a recipe has R1 and R2, its step with gan.difference=0.01 is timed as well, and the estimate's error is measured
at the first weights and after 20 steps, over 64 directions for each image of a minibatch.

Sides take turns in going first. Prints seconds per step and ratios, alone and while another process copies memory.
Like train.py, the program asks for huge pages, from which both sides gain; `GLIBC_TUNABLES=glibc.malloc.hugetlb=0`
leaves them out.
"""

import argparse
import importlib.metadata
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gormley_vision.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()

import jax
import jax.numpy as jnp
import torch
from gan_peers import torch_step
from timing import copying, interleaved, report

from gormley_vision import experiment
from gormley_vision.command_line import load_config_file
from gormley_vision.config import validate
from gormley_vision.files import user_path, write_json
from gormley_vision.losses.penalties import estimated_squared_norms, squared_norms
from gormley_vision.tasks.gan.task import GAN
from gormley_vision.tasks.networks import Variables, to_unit_range
from gormley_vision.training.environment import describe_environment, source_commit
from gormley_vision.training.loop import Step
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import first_state

ROOT = Path(__file__).parents[1]
_SMALL_R3GAN = {
    "data.batch_size": 32,
    "generator.width": 96,
    "discriminator.width": 96,
    "gan.augment": "",
    "gan.conditional": False,
}
_SMALL_VITGAN = {"data.batch_size": 32, "gan.augment": ""}
_SMALL_VITGAN |= {f"{player}.width": 192 for player in ("generator", "discriminator")}
_SMALL_VITGAN |= {f"{player}.heads": 3 for player in ("generator", "discriminator")}
_SMALL_VITGAN |= {f"{player}.depth": 2 for player in ("generator", "discriminator")}
# Whether the peer is faster with channels last, and what of a config is smaller here.
RECIPES: dict[str, tuple[bool, dict[str, Any]]] = {
    "goodfellow2014_mnist": (False, {}),
    "lsgan_mnist": (True, {}),
    "wgan_mnist": (True, {}),
    "acgan_mnist": (True, {}),
    "stacked_mnist": (True, {}),
    "wgan_gp_cifar": (True, {}),
    "sngan_cifar": (True, {}),
    "r3gan_cifar": (True, _SMALL_R3GAN),
    "vitgan_cifar": (False, _SMALL_VITGAN),
}
OURS, BY_DIFFERENCE, PEER = "gormley_vision", "gormley_vision, difference", "torch"
SIZE = 0.01  # of the difference
DIRECTIONS, STEPS = 64, 20


def recipe(name: str, **changes: Any) -> Any:
    """Return a recipe's config, on made-up images."""
    config = load_config_file(str(ROOT / "configs" / f"{name}.py"))
    changes = {"data.source": "fake", "data.name": "", "mesh.data": 1} | RECIPES[name][1] | changes
    config.update_from_flattened_dict(changes)
    if not config.gan.augment:
        points = config.gan.schedules.split("; ")
        config.gan.schedules = "; ".join(point for point in points if not point.startswith("gan.augment"))
    validate(config.to_dict())
    return config
