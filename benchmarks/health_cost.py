"""Measure what an examination of a GAN's health costs, in steps, and as a share of a run with one each `health.every`.

    python benchmarks/health_cost.py [--configs dcgan_mnist stacked_mnist dcgan_cifar] [--turns=7]

Steps and examinations take turns in one process, on made-up images; prints a JSON line for each config.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path

import jax

from gormley_vision import durations, experiment
from gormley_vision.command_line import load_config_file
from gormley_vision.errors import reported
from gormley_vision.run import start_jax
from gormley_vision.training.checkup import Checkup
from gormley_vision.training.loop import Step
from gormley_vision.training.sharding import Shardings
from gormley_vision.training.task import first_state

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["dcgan_mnist", "stacked_mnist", "dcgan_cifar"])
    parser.add_argument("--turns", type=int, default=7, help="of a step and an examination")
    options = parser.parse_args()
    start_jax()
    for name in options.configs:
        config = load_config_file(str(ROOT / "configs" / f"{name}.py"))
        config.data.update(source="fake", name="")
        config.mesh.data = 1
        batches = experiment.make_batches(config.to_dict())
        task = experiment.make_task(config.to_dict(), batches.description)
        shardings = Shardings(experiment.mesh_of(config.to_dict()), ())
        every = durations.to_steps(config.health.every, epoch_images=1, step_images=1)
        checkup = Checkup(task, batches, None, every, "warn")
        checkup.start(ROOT, [], shardings, 1)
        step = Step(task, batches.fetch, shardings.replicated, shardings)
        key = jax.device_put(jax.random.key(0), shardings.replicated)
        resident = jax.device_put(batches.resident, shardings.replicated)
        state = jax.jit(partial(first_state, task), out_shardings=shardings.replicated)(key)
        ahead, times = batches.from_step(0), {what: list[float]() for what in ("step", "examination")}
        for _ in range(options.turns + 1):
            began = time.perf_counter()
            state, _, _ = step(state, resident, jax.device_put(next(ahead), shardings.batch), key)
            jax.block_until_ready(state)
            middle = time.perf_counter()
            checkup.examined(state, key)
            times["examination"].append(time.perf_counter() - middle)
            times["step"].append(middle - began)
        a, b = (statistics.median(times[what][1:]) for what in ("step", "examination"))
        row = {"config": name, "step_s": round(a, 4), "examination_s": round(b, 4), "steps": round(b / a, 2)}
        print(json.dumps(row | {"every": every, "share": round(b / a / every, 4)}), flush=True)


if __name__ == "__main__":
    with reported():
        main()
