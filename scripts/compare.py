"""What sets of runs reached: mean and spread over seeds of a figure at the last step, as a table and a JSON file.

    python scripts/compare.py --workdirs RUN [RUN ...] [--metric=eval/accuracy] [--out=results/NAME.json]

Runs whose configs differ in the seed alone are one arm, named by the keys in which the arms differ.
"""

import argparse
from pathlib import Path

from gormley_vision.config import flatten, upgraded
from gormley_vision.errors import UserError, reported
from gormley_vision.files import read_json, user_path, write_json
from gormley_vision.sweeps.arms import arms_of, mean_and_deviation
from gormley_vision.sweeps.runs import metrics_of


def main() -> None:
    """Group, average, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdirs", required=True, nargs="+", type=user_path)
    parser.add_argument("--metric", default="eval/accuracy")
    parser.add_argument("--out", type=user_path, help="write the figures here, too")
    options = parser.parse_args()
    configs = [flatten(upgraded(read_json(folder / "config.json"))) for folder in options.workdirs]
    rows = []
    for name, members in arms_of(configs).items():
        curves = {str(configs[i]["seed"]): curve(options.workdirs[i], options.metric) for i in members}
        last = [values[-1] for values in curves.values()]
        mean, deviation = mean_and_deviation(last)
        print(f"{name}: {mean:.4f} +- {deviation:.4f}, seeds " + ", ".join(f"{x:.4f}" for x in last))
        rows.append({"arm": name, "mean": mean, "standard_deviation": deviation, "curves": curves})
    if options.out:
        write_json(options.out, {"metric": options.metric, "arms": rows})


def curve(folder: Path, metric: str) -> list[float]:
    """The figure at each step that has it.

    Raises:
        UserError: no step has.
    """
    lines = metrics_of(folder)
    values = [line[metric] for line in lines if metric in line]
    if not values:
        known = ", ".join(sorted(lines[-1])) if lines else "none yet"
        raise UserError(f"{folder} has no {metric}: --metric is one of {known}")
    return values


if __name__ == "__main__":
    with reported():
        main()
