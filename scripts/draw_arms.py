"""Sets of runs against each other, by labelled examples or by steps: a table, a JSON file and a picture.

    python scripts/draw_arms.py --over=labels --arms "fine-tuned=runs/text_labels/trec_fine-tuned*" \\
        "TF-IDF=tfidf_trec.json" --out=results/trec_labels.json --picture=docs/images/trec_labels.png
    python scripts/draw_arms.py --over=steps --metric=eval/loss --arms "RoPE=runs/lm_context/RoPE_at_256*" \\
        --out=results/lm_context.json --picture=docs/images/lm_context.png

An arm is a name and the folders of its runs, as a pattern, or the JSON file of scripts/tfidf_baseline.py. Runs with as
many labelled examples, or figures at the same step, are one point: mean and standard deviation.
"""

import argparse
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from gormley_vision import durations
    from gormley_vision.config import run_config, step_images
    from gormley_vision.files import path_flag, read_json, refuse_unwritable, user_path, write_json
    from gormley_vision.sweeps.arms import mean_and_deviation
    from gormley_vision.sweeps.runs import metrics_of

Row = dict[str, Any]  # arm, split, seed, examples, step, value
COLUMNS = {"labels": "examples", "steps": "step"}
AXES = {"labels": "labelled examples", "steps": "steps"}


def main() -> None:
    """Collect, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--over", required=True, choices=tuple(COLUMNS), help="what the axis of the picture is")
    parser.add_argument("--arms", required=True, nargs="+", help="NAME=PATTERN of folders, or NAME=FILE.json")
    parser.add_argument("--metric", default="eval/accuracy", help="a key of metrics.jsonl (default: eval/accuracy)")
    parser.add_argument("--title", default="", help="of the picture")
    parser.add_argument("--out", type=path_flag, required=True, help="the JSON file to write")
    parser.add_argument("--picture", type=path_flag, help="the picture to write, such as arms.png (needs matplotlib)")
    options = parser.parse_args()
    for path in filter(None, (options.out, options.picture)):
        refuse_unwritable(path)
    if options.picture and options.picture.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"--picture={options.picture}: name it FILE.png, FILE.pdf or FILE.svg")
    rows = [row for arm in options.arms for row in rows_of(arm, options.metric, options.over)]
    found = points(rows, COLUMNS[options.over])
    write_json(options.out, {"metric": options.metric, "over": options.over, "rows": rows})
    print(table(found, options.over, options.metric))
    if options.picture:
        draw(found, options.over, options.metric, options.title, options.picture)


def rows_of(arm: str, metric: str, over: str) -> list[Row]:
    """Return an arm's figures.

    Raises:
        UserError: nothing is there, or a run has not been evaluated.
    """
    name, _, pattern = arm.partition("=")
    if not pattern:
        raise UserError(f"--arms {arm}: write NAME=PATTERN, as in 'from scratch=runs/labels/scratch*'")
    found = user_path(pattern)
    paths = sorted(Path(found.anchor).glob(str(found.relative_to(found.anchor))))
    if not paths:
        raise UserError(f"--arms {arm}: there is no {pattern}")
    runs = [path for path in paths if (path / "config.json").is_file()]  # a sweep's folder also has its report
    files = [] if runs else [path for path in paths if path.suffix == ".json"]
    rows = [row for path in runs for row in run_rows(path, metric, over)]
    rows += [row for path in files for row in file_rows(path, COLUMNS[over])]
    if not rows:
        raise UserError(f"--arms {arm}: {pattern} has no run's folder and no .json file")
    return [{"arm": name, **row} for row in rows]


def file_rows(path: Path, column: str) -> list[Row]:
    """Return the figures of a JSON file.

    Raises:
        UserError: it has none, or not over what is drawn.
    """
    content = read_json(path)
    rows = content.get("rows") if isinstance(content, dict) else None
    if not rows or not all(column in row and "value" in row for row in rows):
        raise UserError(f"{path} has no figures by {column}: pass what scripts/tfidf_baseline.py --out wrote")
    return rows


def run_rows(folder: Path, metric: str, over: str) -> list[Row]:
    """Return a run's figures: at each step, or the last one."""
    config = run_config(folder)
    having = [line for line in metrics_of(folder) if metric in line]
    if not having:
        raise UserError(f"{folder} has no {metric}: train it to its end, or leave it out")
    checkpoints = sorted((folder / "checkpoints").glob("*/meta.json"), key=lambda path: int(path.parent.name))
    if not checkpoints:
        raise UserError(f"{folder} has no checkpoint, which says how many examples it had: train it again")
    length = read_json(checkpoints[-1])["data"]["length"]
    end = durations.to_steps(config["duration"], epoch_images=length, step_images=step_images(config))
    if having[-1]["step"] < end:
        raise UserError(f"{folder} is at step {having[-1]['step']} of {end}: train it to its end, or leave it out")
    same = {"split": config["data"]["split"], "seed": config["seed"], "examples": length}
    chosen = having if over == "steps" else having[-1:]
    return [same | {"step": line["step"], "value": line[metric]} for line in chosen]


def points(rows: list[Row], column: str) -> dict[str, dict[int, list[float]]]:
    """Return {arm: {examples or step: figures}}; numbers of examples that differ by one are the same point."""
    found: dict[str, dict[int, list[float]]] = {}
    places: list[int] = []
    for place in sorted({row[column] for row in rows}):
        places += [] if places and column == "examples" and place - places[-1] <= 1 else [place]
    for row in rows:
        place = max(place for place in places if place <= row[column])
        found.setdefault(row["arm"], {}).setdefault(place, []).append(row["value"])
    return {arm: dict(sorted(by_place.items())) for arm, by_place in found.items()}


def table(found: dict[str, dict[int, list[float]]], over: str, metric: str) -> str:
    """Return a Markdown table: arms down; across, numbers of labelled examples, or the last step."""
    places = sorted({place for arm in found.values() for place in arm})
    if over == "steps":
        places = places[-1:]
    lines = [f"| {AXES[over]} | {' | '.join(f'{place:,}' for place in places)} |", "| --- " * (len(places) + 1) + "|"]
    scale, digits = (100, 1) if "accuracy" in metric else (1, 3)
    for arm, by_place in found.items():
        cells = []
        for values in [by_place.get(place, []) for place in places]:
            mean, deviation = mean_and_deviation(values) if values else (0.0, 0.0)
            spread = f" ± {scale * deviation:.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{scale * mean:.{digits}f}{spread}" if values else "")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: dict[str, dict[int, list[float]]], over: str, metric: str, title: str, path: Path) -> None:
    """Draw the means with their deviations."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    percent = "accuracy" in metric
    for arm, by_place in found.items():
        means, deviations = zip(*(mean_and_deviation(values) for values in by_place.values()), strict=True)
        scale = 100 if percent else 1
        y, spread = [scale * mean for mean in means], [scale * deviation for deviation in deviations]
        axes.errorbar(list(by_place), y, spread, marker="o" if over == "labels" else "", capsize=3, label=arm)
    axes.set(xlabel=AXES[over], ylabel=metric.removeprefix("eval/") + (", %" if percent else ""), title=title)
    if over == "labels":
        ticks = sorted({place for arm in found.values() for place in arm})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
        axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    with reported():
        main()
