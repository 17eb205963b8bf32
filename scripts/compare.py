"""What sets of runs reached: mean and spread over seeds of a figure at the last step, as a table and a JSON file.

    python scripts/compare.py --workdirs RUN [RUN ...] [--metric=eval/accuracy] [--out=results/NAME.json]

Runs whose configs differ in the seed alone are one arm, named by the keys in which the arms differ.
"""

import argparse
import sys
from pathlib import Path

from gormley_vision.errors import UserError, reported

with reported():  # what loads now takes a moment
    from gormley_vision.config import flatten, run_config
    from gormley_vision.files import refuse_unwritable, user_path, write_json
    from gormley_vision.sweeps.arms import arms_of, mean_and_deviation
    from gormley_vision.sweeps.runs import metrics_of


def main() -> None:
    """Group, average, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdirs", required=True, nargs="+", type=user_path)
    parser.add_argument("--metric", default="eval/accuracy")
    parser.add_argument("--out", type=user_path, help="write the figures here, too")
    options = parser.parse_args()
    if options.out:
        refuse_unwritable(options.out)
    configs = [flatten(run_config(folder)) for folder in options.workdirs]
    rows = []
    for name, members in arms_of(configs).items():
        folders = by_seed([(str(configs[i]["seed"]), options.workdirs[i]) for i in members])
        found = {seed: curve(folder, options.metric) for seed, folder in folders.items()}
        steps, curves = {seed: step for seed, (step, _) in found.items()}, {seed: c for seed, (_, c) in found.items()}
        if len(set(steps.values())) > 1:
            each = ", ".join(f"seed {seed} of step {step}" for seed, step in steps.items())
            print(f"{name}: these are not figures of one step: {each}", file=sys.stderr)
        last = [values[-1] for values in curves.values()]
        mean, deviation = mean_and_deviation(last)
        print(f"{name}: {mean:.4f} +- {deviation:.4f}, seeds " + ", ".join(f"{x:.4f}" for x in last))
        rows.append({"arm": name, "mean": mean, "standard_deviation": deviation, "curves": curves, "steps": steps})
    if options.out:
        write_json(options.out, {"metric": options.metric, "arms": rows})


def by_seed(runs: list[tuple[str, Path]]) -> dict[str, Path]:
    """{seed: the folder of its run}.

    Raises:
        UserError: two runs of a seed, which are one run twice.
    """
    folders: dict[str, Path] = {}
    for seed, folder in runs:
        if seed in folders:
            raise UserError(f"{folders[seed]} and {folder} are both of seed {seed}, of one config: leave out either")
        folders[seed] = folder
    return folders


def curve(folder: Path, metric: str) -> tuple[int, list[float]]:
    """The last step that has the figure, and the figure at each step that has it.

    Raises:
        UserError: no step has.
    """
    lines = metrics_of(folder)
    known = {key for line in lines for key in line} - {"step", "time"}
    if metric not in known:
        raise UserError(f"{folder} has no {metric}: --metric is one of {', '.join(sorted(known)) or 'none yet'}")
    having = [line for line in lines if metric in line]
    return having[-1]["step"], [line[metric] for line in having]


if __name__ == "__main__":
    with reported():
        main()
