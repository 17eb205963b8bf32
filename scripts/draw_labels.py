"""Accuracy by the number of labelled examples, a line for each way to train: a table, a JSON file and a picture.

    python scripts/draw_labels.py --arms "fine-tuned=runs/text_labels/trec_fine-tuned*" "TF-IDF=tfidf_trec.json" \\
        --out=results/trec_labels.json --picture=docs/images/trec_labels.png

An arm is a name and the folders of its runs, as a pattern, or the JSON file of scripts/tfidf_baseline.py. Runs with as
many labelled examples are one point: mean and standard deviation over their seeds and parts of the training split.
"""

import argparse
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from gormley_vision.config import run_config
    from gormley_vision.files import read_json, refuse_unwritable, user_path, write_json
    from gormley_vision.sweeps.arms import mean_and_deviation
    from gormley_vision.sweeps.runs import metrics_of

Row = dict[str, Any]  # arm, examples, split, seed, value


def main() -> None:
    """Collect, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", required=True, nargs="+", help="NAME=PATTERN of folders, or NAME=FILE.json")
    parser.add_argument("--metric", default="eval/accuracy", help="a key of metrics.jsonl (default: eval/accuracy)")
    parser.add_argument("--title", default="", help="of the picture")
    parser.add_argument("--out", type=user_path, required=True, help="the JSON file to write")
    parser.add_argument("--picture", type=user_path, help="the picture to write, such as labels.png (needs matplotlib)")
    options = parser.parse_args()
    for path in filter(None, (options.out, options.picture)):
        refuse_unwritable(path)
    rows = [row for arm in options.arms for row in rows_of(arm, options.metric)]
    write_json(options.out, {"metric": options.metric, "rows": rows})
    print(table(rows))
    if options.picture:
        draw(rows, options.title, options.metric, options.picture)


def rows_of(arm: str, metric: str) -> list[Row]:
    """Return an arm's figures, those with the fewest examples first.

    Raises:
        UserError: nothing is there, or a run has not been evaluated.
    """
    name, _, pattern = arm.partition("=")
    if not pattern:
        raise UserError(f"--arms {arm}: write NAME=PATTERN, as in 'from scratch=runs/labels/seed=*'")
    found = user_path(pattern)
    paths = sorted(Path(found.anchor).glob(str(found.relative_to(found.anchor))))
    if not paths:
        raise UserError(f"--arms {arm}: there is no {pattern}")
    if paths[0].suffix == ".json":
        rows = [{"arm": name, **row} for path in paths for row in read_json(path)["rows"]]
    else:
        rows = [row_of(name, path, metric) for path in paths]
    return sorted(rows, key=lambda row: (row["examples"], row["split"], row.get("seed", 0)))


def row_of(name: str, folder: Path, metric: str) -> Row:
    """Return a run's last figure."""
    config = run_config(folder)
    having = [line for line in metrics_of(folder) if metric in line]
    if not having:
        raise UserError(f"{folder} has no {metric}: train it to its end, or leave it out")
    newest = max((folder / "checkpoints").glob("*/meta.json"), key=lambda path: int(path.parent.name))
    return {
        "arm": name,
        "examples": read_json(newest)["data"]["length"],
        "split": config["data"]["split"],
        "seed": config["seed"],
        "step": having[-1]["step"],
        "value": having[-1][metric],
    }


def points(rows: list[Row]) -> dict[str, dict[int, list[float]]]:
    """Return {arm: {examples: figures}}; parts whose sizes differ by one example are the same point."""
    found: dict[str, dict[int, list[float]]] = {}
    sizes: list[int] = []
    for size in sorted({row["examples"] for row in rows}):
        sizes += [] if sizes and size - sizes[-1] <= 1 else [size]
    for row in rows:
        size = max(size for size in sizes if size <= row["examples"])
        found.setdefault(row["arm"], {}).setdefault(size, []).append(row["value"])
    return found


def table(rows: list[Row]) -> str:
    """Return a Markdown table in percent: arms down, numbers of labelled examples across."""
    found = points(rows)
    sizes = sorted({size for arm in found.values() for size in arm})
    lines = [f"| labelled examples | {' | '.join(f'{size:,}' for size in sizes)} |", "| --- " * (len(sizes) + 1) + "|"]
    for arm, by_size in found.items():
        cells = []
        for size in sizes:
            mean, deviation = mean_and_deviation(by_size[size]) if size in by_size else (0.0, 0.0)
            spread = f" ± {100 * deviation:.1f}" if len(by_size.get(size, ())) > 1 else ""
            cells.append(f"{100 * mean:.1f}{spread}" if size in by_size else "")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[Row], title: str, metric: str, path: Path) -> None:
    """Draw the means with their deviations over the number of labelled examples."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for arm, by_size in points(rows).items():
        sizes = sorted(by_size)
        means, deviations = zip(*(mean_and_deviation(by_size[size]) for size in sizes), strict=True)
        percents = [100 * mean for mean in means]
        axes.errorbar(sizes, percents, [100 * d for d in deviations], marker="o", capsize=3, label=arm)
    axes.set(xscale="log", xlabel="labelled examples", ylabel=f"{metric.removeprefix('eval/')}, %", title=title)
    ticks = sorted({size for arm in points(rows).values() for size in arm})
    axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    with reported():
        main()
