"""Compare sets of runs: mean and standard deviation over seeds of a metric at the last step, also as JSON.

    python scripts/compare.py --workdirs RUN [RUN ...] [--metric eval/accuracy [...]] [--out=results/NAME.json]

Runs whose configs only differ in the seed are one arm, named by the keys in which the arms differ.

    python scripts/compare.py --cards A.json B.json [...]

compares what scripts/evaluate.py --extractor=... --out=FILE.json measured, and refuses cards that were not measured
alike: it says which fields differ. Figures that not every card of an arm has are left out, and named.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from gormley_vision.config import flatten, run_config
    from gormley_vision.files import path_flag, refuse_unwritable, write_json
    from gormley_vision.sweeps.arms import arms_of, mean_and_deviation
    from gormley_vision.sweeps.runs import metrics_of
    from gormley_vision.training.cards import is_figure, read_card, refuse_unlike


def main() -> None:
    """Group the runs, average, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdirs", nargs="+", type=path_flag, help="the runs' folders")
    what.add_argument("--cards", nargs="+", type=path_flag, help="files of scripts/evaluate.py --out")
    parser.add_argument(
        "--metric", nargs="+", default=["eval/accuracy"], help="keys of metrics.jsonl (default: eval/accuracy)"
    )
    parser.add_argument("--out", type=path_flag, help="also write the results to this JSON file")
    options = parser.parse_args()
    if options.out:
        refuse_unwritable(options.out)
    if options.cards:
        compare_cards(options.cards, options.out)
        return
    tables = []
    for metric in options.metric:
        if len(options.metric) > 1:
            print(metric)
        tables.append({"metric": metric, "arms": compare_runs(options.workdirs, metric)})
    if options.out:
        write_json(options.out, tables[0] if len(tables) == 1 else {"metrics": tables})


def compare_runs(workdirs: Sequence[Path], metric: str) -> list[dict[str, Any]]:
    """Print a metric of each arm, and return it."""
    configs = [flatten(run_config(folder)) for folder in workdirs]
    rows = []
    for name, members in arms_of(configs).items():
        folders = by_seed([(str(configs[i]["seed"]), workdirs[i]) for i in members])
        found = {seed: curve(folder, metric) for seed, folder in folders.items()}
        steps, curves = {seed: step for seed, (step, _) in found.items()}, {seed: c for seed, (_, c) in found.items()}
        if len(set(steps.values())) > 1:
            each = ", ".join(f"seed {seed} at step {step}" for seed, step in steps.items())
            print(f"{name}: the runs end at different steps: {each}", file=sys.stderr)
        last = [values[-1] for values in curves.values()]
        mean, deviation = mean_and_deviation(last)
        print(f"{name}: {mean:.4f} +- {deviation:.4f}, seeds " + ", ".join(f"{x:.4f}" for x in last))
        rows.append({"arm": name, "mean": mean, "standard_deviation": deviation, "curves": curves, "steps": steps})
    return rows


def compare_cards(paths: Sequence[Path], out: Path | None) -> None:
    """Print the figures of cards that were measured alike: of an arm's runs, mean and deviation over training seeds.

    Raises:
        UserError: two were not measured alike; names the fields.
    """
    cards = {path: read_card(path) for path in paths}
    refuse_unlike(cards)
    arms: dict[str, list[Path]] = {}
    for path, card in cards.items():
        arms.setdefault(card["fake"].get("config_sha256", str(path)), []).append(path)
    rows = []
    for members in arms.values():
        seeds = [cards[path]["fake"].get("training_seed") for path in members]
        if len(set(seeds)) < len(seeds) and len(members) > 1:
            raise UserError(f"{', '.join(map(str, members))} are of one arm and share a training seed: leave one out")
        steps = [cards[path]["fake"].get("step") for path in members]
        if len(set(steps)) > 1:
            each = ", ".join(f"{step} in {path}" for step, path in zip(steps, members, strict=True))
            print(f"the samples are of different steps: {each}", file=sys.stderr)
        found = averaged({path: cards[path]["figures"] for path in members})
        print(f"{', '.join(map(str, members))}")
        for name, figure in found.items():
            spread = f" +- {figure['standard_deviation']:.4f}" if len(members) > 1 else ""
            print(f"  {name}: {figure['mean']:.4f}{spread}")
        names = [str(path) for path in members]
        rows.append({"cards": names, "training_seeds": seeds, "steps": steps, "figures": found})
    if out:
        card = cards[paths[0]]
        write_json(out, {"arms": rows, **{part: card[part] for part in ("extractor", "real", "is_fid")}})


def averaged(figures: Mapping[Path, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return {name: mean and deviation} of the figures that all cards have, and name the others on standard error."""
    found = {}
    for name in dict.fromkeys(name for each in figures.values() for name in each):
        values: list[Any] = [each.get(name) for each in figures.values()]
        if all(map(is_figure, values)):
            found[name] = dict(zip(("mean", "standard_deviation"), mean_and_deviation(values), strict=True))
        elif not all(isinstance(value, dict) for value in values):
            lacking = [str(path) for path, value in zip(figures, values, strict=True) if not is_figure(value)]
            print(f"left out: {name}, for which there is no number in {', '.join(lacking)}", file=sys.stderr)
    return found


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
