"""Time each GAN recipe's whole training step here and in PyTorch eager, interleaved in one process.

    pip install -e ".[bench]"
    python benchmarks/gan_recipes.py [--recipes stacked_mnist wgan_gp_cifar ...] [--turns=5]
        [--json=results/gan_recipes.json]

A recipe is a file in configs/ with made-up images of its published size, float32; both sides read the same config, and
gan_peers.py says what the peer does. As published, but for four whose step would take many seconds on two cores:
wgan_gp_cifar and sngan_cifar have 8 images a minibatch rather than 64; r3gan_cifar 96 channels rather than 768, batch
32, no augmentation and no labels; vitgan_cifar 192 channels, depth 2, batch 32 and no augmentation.

Where a recipe has R1 and R2, its step with gan.difference=0.01 is timed as well. For stacked_mnist and r3gan_cifar the
error of that estimate of R1 is measured at the first weights and after 20 steps, over 64 directions for each image of
a minibatch: its bias with a standard error, the part of the bias that the difference's size makes (against the exact
slopes along the same directions), and its standard deviation over a minibatch's directions, all relative to R1.

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
from typing import Any, NamedTuple

from gormley_vision.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()

import jax
import jax.numpy as jnp
import numpy as np
import torch
from gan_peers import torch_step
from timing import copying, interleaved, report

from gormley_vision import experiment
from gormley_vision.command_line import load_config_file
from gormley_vision.config import validate
from gormley_vision.files import path_flag, write_json
from gormley_vision.losses.penalties import estimated_squared_norms, squared_norms
from gormley_vision.tasks.networks import to_unit_range
from gormley_vision.training.environment import describe_environment, source_commit
from gormley_vision.training.loop import Step
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import first_state

ROOT = Path(__file__).parents[1]
_BOTH = ("generator", "discriminator")
_SMALL_R3GAN = {"data.batch_size": 32, "gan.augment": "", "gan.conditional": False}
_SMALL_R3GAN |= {f"{player}.width": 96 for player in _BOTH}
_SMALL_VITGAN = {"data.batch_size": 32, "gan.augment": ""}
_SMALL_VITGAN |= {f"{player}.{key}": size for player in _BOTH for key, size in (("width", 192), ("depth", 2))}
_SMALL_VITGAN |= {f"{player}.heads": 3 for player in _BOTH}
# What of a recipe's config is smaller than published.
RECIPES: dict[str, dict[str, Any]] = {
    "goodfellow2014_mnist": {},
    "lsgan_mnist": {},
    "wgan_mnist": {},
    "acgan_mnist": {},
    "stacked_mnist": {},
    "wgan_gp_cifar": {"data.batch_size": 8},
    "sngan_cifar": {"data.batch_size": 8},
    "r3gan_cifar": _SMALL_R3GAN,
    "vitgan_cifar": _SMALL_VITGAN,
}
ESTIMATED = ("stacked_mnist", "r3gan_cifar")  # recipes whose estimate of R1 is measured
OURS, BY_DIFFERENCE, PEER = "gormley_vision", "gormley_vision, difference", "torch"
SIZE = 0.01  # of the difference
DIRECTIONS, STEPS = 64, 20
CONDITIONS = {"alone": False, "another process copies memory": True}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="files in configs/")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each side in each condition")
    parser.add_argument("--json", type=path_flag, help="also write the figures to this file, after every recipe")
    return parser.parse_args()


def recipe(name: str, **changes: Any) -> Any:
    """Return a recipe's config, on made-up images; `changes` are by key, with __ for the point."""
    config = load_config_file(str(ROOT / "configs" / f"{name}.py"))
    made_up = {"data.source": "fake", "data.name": "", "mesh.data": 1}
    given = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(made_up | RECIPES[name] | given)
    if not config.gan.augment:
        points = config.gan.schedules.split("; ")
        config.gan.schedules = "; ".join(point for point in points if not point.startswith("gan.augment"))
    validate(config.to_dict())
    return config


class Game(NamedTuple):
    """A recipe's run: its task and mesh, one step (to the end), its state, and a minibatch of images in [-1, 1]."""

    task: Any
    shardings: Shardings
    run: Callable[[], None]
    state: Callable[[], Any]
    images: jax.Array


def ours(config: Any) -> Game:
    """Return the loop's own compiled step on the loop's own batches."""
    batches = experiment.make_batches(config.to_dict())
    task = experiment.make_task(config.to_dict(), batches.description)
    shardings = Shardings(make_mesh(config.mesh, config.data.batch_size), ())
    step = Step(task, batches.fetch, shardings.replicated, shardings)
    key = jax.device_put(jax.random.key(0), shardings.replicated)
    resident = jax.device_put(batches.resident, shardings.replicated)
    ahead = batches.from_step(0)
    images = to_unit_range(batches.fetch(resident, next(ahead))["image"][0])
    holder = [jax.jit(partial(first_state, task), out_shardings=shardings.replicated)(key)]

    def run() -> None:
        holder[0], _, _ = step(holder[0], resident, jax.device_put(next(ahead), shardings.batch), key)
        jax.block_until_ready(holder[0])

    return Game(task, shardings, run, lambda: holder[0], images)


def estimate_error(game: Game) -> dict[str, float]:
    """Return how far R1 by the difference is from R1, relative to it, at the game's state."""
    variables, images, discriminator = game.state().discriminator.variables, game.images, game.task.discriminator

    def critic(variables: Any, at: jax.Array) -> jax.Array:
        return discriminator.apply(variables, at, None, train=True)

    def of_gradients(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        exact = jnp.mean(squared_norms(partial(critic, variables), images))
        return exact, jax.grad(lambda at: critic(variables, at).sum())(images)

    def estimates(variables: Any, images: jax.Array, gradients: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
        def linear(at: jax.Array) -> jax.Array:
            return jnp.sum(gradients * (at - images), axis=(1, 2, 3))

        critics = partial(critic, variables), linear
        return tuple(jnp.mean(estimated_squared_norms(f, images, key, SIZE)) for f in critics)

    # On the mesh, as in the step: layers choose by it how they are computed.
    squared, gradients = game.shardings.jit(of_gradients)(variables, images)
    estimate, exact = game.shardings.jit(estimates), float(squared)
    keys = jax.random.split(jax.random.key(1), DIRECTIONS)
    found = np.array([jax.device_get(estimate(variables, images, gradients, key)) for key in keys]) / exact
    means, spread = found.mean(axis=0), float(found[:, 0].std(ddof=1))
    return {
        "r1": exact / 2,
        "bias": float(means[0] - 1),
        "standard_error_of_bias": spread / DIRECTIONS**0.5,
        "bias_by_size": float(means[0] / means[1] - 1),
        "spread_of_a_minibatch": spread,
    }


def measured_errors(game: Game) -> dict[str, dict[str, float]]:
    """Return the estimate's error at the first weights and after `STEPS` steps, and print it."""
    errors = {"first weights": estimate_error(game)}
    for _ in range(STEPS):
        game.run()
    errors[f"after {STEPS} steps"] = estimate_error(game)
    for when, error in errors.items():
        shown = ", ".join(f"{name} {value:.2%}" for name, value in error.items() if name != "r1")
        print(f"R1 by a difference of {SIZE}, {when}: R1 {error['r1']:.3g}; relative to it {shown}")
    return errors


def measured(name: str, turns: int) -> dict[str, Any]:
    """Time one recipe's sides in both conditions, and measure its estimate's error; print and return the figures."""
    config = recipe(name)
    print(f"\n{name}, batch {config.data.batch_size}")
    figures: dict[str, Any] = {"smaller": RECIPES[name]}
    game = ours(config)
    sides, pairs = {OURS: game.run, PEER: torch_step(config)}, {PEER: OURS}
    if name in ESTIMATED:
        figures["r1_by_difference"] = measured_errors(game)
    if config.gan.r1 or "gan.r1" in config.gan.schedules:
        sides[BY_DIFFERENCE], pairs[OURS] = ours(recipe(name, gan__difference=SIZE)).run, BY_DIFFERENCE
    for condition, busy in CONDITIONS.items():
        print(condition)
        with copying(busy):
            figures[condition] = report(interleaved(sides, turns, warmup=1 if busy else 2), pairs)
    return figures


def table(recipes: Mapping[str, Any]) -> str:
    """Return ratios of pairs by recipe: to PyTorch's time, and of the step by the difference to the exact one."""
    lines = [
        f"{'recipe':<22}{'step alone':>12}{'to torch: alone':>17}{'busy':>7}{'by difference: alone':>22}{'busy':>7}"
    ]
    for name, figures in recipes.items():
        row = f"{name:<22}{figures['alone']['seconds'][OURS]['median']:>10.3f} s"
        for (peer, first), condition in ((pair, c) for pair in ((PEER, 17), (OURS, 22)) for c in CONDITIONS):
            ratio = figures[condition]["ratios"].get(peer)
            width = first if condition == "alone" else 7
            row += f"{ratio['median_of_pairs']:>{width}.2f}" if ratio else f"{'-':>{width}}"
        lines.append(row)
    return "\n".join(lines)


def main() -> None:
    """Measure the recipes one after the other, and print a table."""
    options = parse()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    figures: dict[str, Any] = {
        "commands": [shlex.join(["python", *sys.argv])],
        "environment": describe_environment(jax.make_mesh((1,), ("data",))),
        "commit": source_commit(),
        "torch": importlib.metadata.version("torch"),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "turns": options.turns,
        "recipes": {},
    }
    for name in options.recipes:
        figures["recipes"][name] = measured(name, options.turns)
        jax.clear_caches()  # a compiled step holds its buffers
        if options.json:
            write_json(options.json, figures)
    print(f"\n{table(figures['recipes'])}")


if __name__ == "__main__":
    main()
