"""What sets of runs reached: mean and spread over seeds of a figure at the last step, as a table and a JSON file.

    python scripts/compare.py --workdirs RUN [RUN ...] [--metric=eval/accuracy] [--out=results/NAME.json]

Runs whose configs differ in the seed alone are one arm, named by the keys in which the arms differ.
"""

import argparse
import json
import statistics
from pathlib import Path

from gormley_vision.config import flatten
from gormley_vision.errors import UserError, reported
from gormley_vision.files import read_json, write_json


def main() -> None:
    """Group, average, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdirs", required=True, nargs="+", type=Path)
    parser.add_argument("--metric", default="eval/accuracy")
    parser.add_argument("--out", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    runs = [(flatten(read_json(folder / "config.json")), folder) for folder in options.workdirs]
    differ = {key for key in runs[0][0] for config, _ in runs if config.get(key) != runs[0][0][key]} - {"seed"}
    arms: dict[str, dict[str, list[float]]] = {}  # of each arm, the curve of each seed
    for config, folder in runs:
        name = ", ".join(f"{key}={config[key]}" for key in sorted(differ)) or "all"
        arms.setdefault(name, {})[str(config["seed"])] = curve(folder, options.metric)
    rows = []
    for name, curves in arms.items():
        last = [values[-1] for values in curves.values()]
        spread = statistics.stdev(last) if len(last) > 1 else 0.0
        print(f"{name}: {statistics.mean(last):.4f} +- {spread:.4f}, seeds " + ", ".join(f"{x:.4f}" for x in last))
        rows.append({"arm": name, "mean": statistics.mean(last), "standard_deviation": spread, "curves": curves})
    if options.out:
        write_json(options.out, {"metric": options.metric, "arms": rows})


def curve(folder: Path, metric: str) -> list[float]:
    """The figure at each step that has it.

    Raises:
        UserError: no step has.
    """
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    values = [line[metric] for line in lines if metric in line]
    if not values:
        raise UserError(f"{folder} has no {metric}: --metric is one of {', '.join(sorted(lines[-1]))}")
    return values


if __name__ == "__main__":
    with reported():
        main()
