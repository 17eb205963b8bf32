"""Reports a sweep: leaderboard.csv, TensorBoard's hparams, and sweep.html."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gormley_vision.errors import UserError
from gormley_vision.files import write_atomically
from gormley_vision.sweeps.page import write_page
from gormley_vision.sweeps.runs import Row, Sweep, metrics_of


def write_report(sweep: Sweep, states: Sequence[str]) -> list[Row]:
    """Write the report into the sweep's folder. Returns its rows, best first, and those without a result last.

    Raises:
        UserError: runs have logged metrics, but not the sweep's.
    """
    find_metric(sweep, states)
    rows = [_row(sweep, i, state) for i, state in enumerate(states)]
    sign = -1 if sweep.higher_is_better else 1
    rows.sort(key=lambda row: sign * row.final[sweep.metric] if row.final else float("inf"))
    write_atomically(sweep.folder / "leaderboard.csv", _table(sweep.metric, rows).encode())
    for row in rows:
        if row.final:
            _write_hparams(row, sweep.metric)
    write_page(sweep, rows)
    return rows


def find_metric(sweep: Sweep, states: Sequence[str]) -> bool:
    """Return whether a run has logged the sweep's metric yet.

    Raises:
        UserError: the logged metrics show that none ever will. Names those that exist.
    """
    tasks = _ranked_tasks(sweep)
    ends = [(run, state) for run, state in zip(sweep.runs, states, strict=True) if run.config["task"] in tasks]
    logged = [{key for line in metrics_of(run.folder) for key in line} for run, _ in ends]
    figures = set().union(*logged) - {"step", "time"}
    if sweep.metric in figures or not figures:
        return sweep.metric in figures
    awaited = sweep.metric.startswith("eval/")  # evaluation happens from time to time, and at the end
    ended = any(keys for keys, (_, state) in zip(logged, ends, strict=True) if state == "done")
    if awaited and not ended and not any(name.startswith("eval/") for name in figures):
        return False
    raise UserError(f"METRIC = {sweep.metric!r} is not a metric of these runs: one of {', '.join(sorted(figures))}")


def _ranked_tasks(sweep: Sweep) -> set[str]:
    """Return the tasks of runs that no other run starts from.

    What comes before may be another task, as pre-training is, whose figure of the same name means something else.
    """
    before = {name for run in sweep.runs for name in run.after}
    return {run.config["task"] for run in sweep.runs if run.name not in before}


def _row(sweep: Sweep, index: int, state: str) -> Row:
    run = sweep.runs[index]
    lines = metrics_of(run.folder)
    ranked = lines if run.config["task"] in _ranked_tasks(sweep) else []
    last: Mapping[str, Any] = next((line for line in reversed(ranked) if sweep.metric in line), {})
    final = {key: value for key, value in last.items() if key != "time" and not key.startswith("verdict/")}
    return Row(run.name, state, run.overrides, run.config, run.folder, lines, final)


def _table(metric: str, rows: Sequence[Row]) -> str:
    """Return CSV: rank, run, state, a column for each swept key, the step and the metric, and all other metrics."""
    swept = sorted({key for row in rows for key in row.overrides})
    others = sorted({key for row in rows for key in row.final} - {metric, "step"})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "run", "state", *swept, "step", metric, *others, "health"])
    for rank, row in enumerate(rows, start=1):
        figures = [row.final.get(key, "") for key in ("step", metric, *others)]
        settings = [row.overrides.get(key, "") for key in swept]
        writer.writerow([rank if row.final else "", row.name, row.state, *settings, *figures, row.verdicts])
    return text.getvalue()


def _write_hparams(row: Row, metric: str) -> None:
    """Write an event file next to the run's own, from which TensorBoard's HParams tab reads the run's settings."""
    from tensorboardX import summary  # 1 s to import
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event

    folder = row.folder / "tensorboard"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.hparams"):
        old.unlink()
    writer = EventsWriter(str(folder / "events"), ".hparams")
    for part in summary.hparams(dict(row.overrides), {metric: row.final[metric]}):
        writer.write_event(Event(wall_time=time.time(), summary=part))
    writer.close()
