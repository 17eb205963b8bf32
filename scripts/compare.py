"""Compare sets of runs: mean and standard deviation over seeds of a metric at the last step, also as JSON.

    python scripts/compare.py --workdirs RUN [RUN ...] [--metric=eval/accuracy] [--out=results/NAME.json]

Runs whose configs only differ in the seed are one arm, named by the keys in which the arms differ.
"""

import argparse
import sys
from pathlib import Path

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from gormley_vision.config import flatten, run_config
    from gormley_vision.files import refuse_unwritable, user_path, write_json
    from gormley_vision.sweeps.arms import arms_of, mean_and_deviation
    from gormley_vision.sweeps.runs import metrics_of


def main() -> None:
    """Group the runs, average, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdirs", required=True, nargs="+", type=user_path, help="the runs' folders")
    parser.add_argument("--metric", default="eval/accuracy", help="a key of metrics.jsonl (default: eval/accuracy)")
    parser.add_argument("--out", type=user_path, help="also write the results to this JSON file")
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
            each = ", ".join(f"seed {seed} at step {step}" for seed, step in steps.items())
            print(f"{name}: the runs end at different steps: {each}", file=sys.stderr)
        last = [values[-1] for values in curves.values()]
        mean, deviation = mean_and_deviation(last)
        print(f"{name}: {mean:.4f} +- {deviation:.4f}, seeds " + ", ".join(f"{x:.4f}" for x in last))
        rows.append({"arm": name, "mean": mean, "standard_deviation": deviation, "curves": curves, "steps": steps})
    if options.out:
        write_json(options.out, {"metric": options.metric, "arms": rows})


def by_seed(runs: list[tuple[str, Path]]) -> dict[str, Path]:
    """Return {seed: the folder of its run}.

    Raises:
        UserError: two runs have the same seed, so they are the same run.
    """
    folders: dict[str, Path] = {}
    for seed, folder in runs:
        if seed in folders:
            raise UserError(f"{folders[seed]} and {folder} both have seed {seed} and the same config: leave one out")
        folders[seed] = folder
    return folders


def curve(folder: Path, metric: str) -> tuple[int, list[float]]:
    """Return the last step with the metric, and the metric at each step that has it.

    Raises:
        UserError: no step has the metric.
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
