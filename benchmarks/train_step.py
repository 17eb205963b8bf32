"""Time a complete GAN training step here and in PyTorch eager, interleaved in one process.

    pip install -e ".[bench]" && python benchmarks/train_step.py [--steps=15] [--size=32] [--compile]

DCGAN at 32x32x3, 64 filters, batch 128, Adam, float32: one discriminator update on real and fake images, then
one generator update on fresh noise. The peer follows pytorch/examples, except for fresh noise in the
generator's update, so that both sides do the same work; `torch (D frozen)` also avoids the discriminator's parameter
gradients in the generator's update, as this package does but the example does not.

Prints seconds per step and the ratio to each peer, alone and while another process copies memory, the lower bound by
the speed of a large matrix product, and the loop's share of time spent waiting for data. Like train.py, the program
asks for huge pages, from which both sides gain; `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` leaves them out.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

from gormley_vision.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()

import jax
from timing import compare

from gormley_vision import experiment
from gormley_vision.config import default_config
from gormley_vision.files import path_flag, write_json
from gormley_vision.models.dcgan import halvings
from gormley_vision.training.loop import Step
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import first_state

WIDTH, LATENT = 64, 100


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15, help="timed steps of each side")
    parser.add_argument("--batch", type=int, default=128, help="batch size")
    parser.add_argument("--size", type=int, default=32, help="image size, pixels")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile, which needs a C++ compiler")
    parser.add_argument("--json", type=path_flag, help="also write the figures to this file")
    return parser.parse_args()


def ours(batch: int, size: int) -> tuple[Callable[[], float], Callable[[], None]]:
    """Return two functions: one waits for data and dispatches (returns seconds waited), one waits for the step."""
    config = default_config("gan")
    config.data.update(source="fake", image_size=size, channels=3, batch_size=batch)
    config.mesh.data = 1
    batches = experiment.make_batches(config.to_dict())
    task = experiment.make_task(config.to_dict(), batches.description)
    shardings = Shardings(make_mesh(config.mesh, batch), ())
    step = Step(task, batches.fetch, shardings.replicated, shardings)
    key = jax.device_put(jax.random.key(0), shardings.replicated)
    state = jax.jit(partial(first_state, task), out_shardings=shardings.replicated)(key)
    resident = jax.device_put(batches.resident, shardings.replicated)
    ahead = batches.from_step(0)
    holder = [state]

    def dispatch() -> float:
        began = time.perf_counter()
        read = next(ahead)
        waited = time.perf_counter() - began
        holder[0], _, _ = step(holder[0], resident, jax.device_put(read, shardings.batch), key)
        return waited

    return dispatch, lambda: jax.block_until_ready(holder[0])


def torch_step(batch: int, size: int, freeze: bool, compiled: bool = False) -> Callable[[], None]:
    """Return the same step in PyTorch: layers, initial weights and update order of pytorch/examples/dcgan."""
    import torch
    from torch import nn
    from torch.nn import functional

    base, depth = halvings(size)
    wide = WIDTH * 2 ** (depth - 1)
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, wide, base, bias=False), nn.BatchNorm2d(wide), nn.ReLU(True)]
    for level in range(depth - 1, 0, -1):
        features = WIDTH * 2 ** (level - 1)
        layers += [nn.ConvTranspose2d(2 * features, features, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(features), nn.ReLU(True)]
    generator = nn.Sequential(*layers, nn.ConvTranspose2d(WIDTH, 3, 4, 2, 1, bias=False), nn.Tanh())
    layers = [nn.Conv2d(3, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for level in range(1, depth):
        features = WIDTH * 2**level
        layers += [nn.Conv2d(features // 2, features, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(features), nn.LeakyReLU(0.2, True)]
    discriminator = nn.Sequential(*layers, nn.Conv2d(wide, 1, base, bias=False), nn.Flatten(0))
    players = (discriminator, generator)
    if compiled:
        discriminator.compile()
        generator.compile()
    d_optimizer, g_optimizer = (torch.optim.Adam(p.parameters(), 2e-4, betas=(0.5, 0.999)) for p in players)
    images = torch.randint(0, 256, (4096, 3, size, size), dtype=torch.uint8)

    def step() -> None:
        real = images[torch.randint(0, len(images), (batch,))].float() / 127.5 - 1
        d_optimizer.zero_grad()
        with torch.no_grad():
            fake = generator(torch.randn(batch, LATENT, 1, 1))
        loss = functional.softplus(-discriminator(real)).mean() + functional.softplus(discriminator(fake)).mean()
        loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        discriminator.requires_grad_(not freeze)
        functional.softplus(-discriminator(generator(torch.randn(batch, LATENT, 1, 1)))).mean().backward()
        discriminator.requires_grad_(True)
        g_optimizer.step()

    return step


def needed_gflop(batch: int, size: int) -> float:
    """Return twice the multiply-adds of all convolutions and dense layers in one step.

    With F the cost of one pass through a player, D's update costs 3F for real and 3F for fake images, minus two
    first-layer input gradients, and F of G; G's update costs 3F minus its first input gradient, and 2F of D.
    """
    base, depth = halvings(size)
    sides = [base * 2**level for level in range(depth + 1)]  # generator order: small to large
    widths = [*(WIDTH * 2 ** (depth - 1 - level) for level in range(depth)), 3]
    inner = [2 * 16 * sides[i] ** 2 * widths[i] * widths[i + 1] for i in range(depth)]
    end = 2 * base**2 * widths[0]
    g, d = sum(inner) + end * LATENT, sum(inner) + end
    flop = (6 * d - 2 * inner[-1]) + g + (3 * g - end * LATENT) + 2 * d
    return batch * flop / 1e9


def main() -> None:
    """Warm up, time both sides in turn, print."""
    options = parse()
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    dispatch, wait = ours(options.batch, options.size)
    sides: dict[str, Callable[[], object]] = {
        "gormley_vision": lambda: (dispatch(), wait()),
        "torch": torch_step(options.batch, options.size, freeze=False),
        "torch (D frozen)": torch_step(options.batch, options.size, freeze=True),
    }
    if options.compile:
        frozen = torch_step(options.batch, options.size, freeze=True, compiled=True)
        sides |= {"torch (D frozen), compiled": frozen}
    ours_of = dict.fromkeys(list(sides)[1:], "gormley_vision")
    figures = compare(sides, ours_of, options.steps, needed_gflop(options.batch, options.size))
    began, waited = time.perf_counter(), 0.0
    for _ in range(options.steps):
        waited += dispatch()
    wait()
    share = waited / (time.perf_counter() - began)

    print(f"waiting for data: {share:.2%} of a step")
    if options.json:
        write_json(options.json, figures | {"waiting_for_data": round(share, 5)})


if __name__ == "__main__":
    main()
