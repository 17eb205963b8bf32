"""A run's records: config.json, metrics.jsonl and sample grids, TensorBoard, and a tracker if one is configured.

Each is a `Writer`. Files and TensorBoard are always written. Files come first: a tracker that was added late or had
failed catches up from them. On resume all are truncated to the checkpoint's step, except a tracker, which is never
sent the same step twice.
"""

import contextlib
import datetime
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gormley_vision.config import flatten
from gormley_vision.files import write_atomically, write_json
from gormley_vision.samples import Samples, Texts, read_png, write_png
from gormley_vision.training.board import Board
from gormley_vision.training.tracking import Tracked

# The records of steps in a run's folder, besides checkpoints.
RECORDS = ("metrics.jsonl", "cards", "samples", "tensorboard")
_SAMPLE = r"\d{8}\.(?:png|txt|json)"
_INTERRUPTED = rf"\.(?:metrics\.jsonl|config\.json|data\.json|{_SAMPLE})\.\d+"  # `write_atomically`, killed


class Writer(Protocol):
    """A destination of records."""

    def scalars(self, step: int, values: Mapping[str, float], times: Mapping[str, float]) -> None:
        """Write the metrics of a step; `times` are those that differ when the same step is run again."""

    def picture(self, step: int, image: np.ndarray) -> None:
        """Write the sample grid of a step, uint8 [H, W, C]."""

    def text(self, step: int, text: str) -> None:
        """Write the samples of a step, for a task whose samples are texts."""

    def flush(self) -> None:
        """Hand everything to the operating system: records before a checkpoint must survive a kill after it."""

    def close(self) -> None:
        """Flush and close."""


class Records:
    """The writers of one run, which continues after `step` (0: from the start)."""

    def __init__(self, workdir: Path, step: int, config: Mapping[str, Any]) -> None:
        cut_back(workdir, step)
        self._cards = workdir / "cards"
        self._writers: list[Writer] = [Files(workdir, config), Board(workdir / "tensorboard", step)]
        if config["log"]["tracker"] != "none":
            tracker = Tracked(config["log"]["tracker"], workdir, flatten(config))
            catch_up(tracker, workdir)
            self._writers.append(tracker)

    def scalars(
        self, step: int, values: Mapping[str, float], images_per_second: float, waiting_for_data: float
    ) -> None:
        """Write the metrics of a step. All but the times are the same however often the run was killed."""
        times = {"images_per_second": round(images_per_second, 1), "waiting_for_data": round(waiting_for_data, 4)}
        for writer in self._writers:
            writer.scalars(step, values, times)

    def samples(self, step: int, samples: Samples) -> None:
        """Write pictures as one grid, points as a plot, or texts as one text."""
        for writer in self._writers:
            if isinstance(samples, Texts):
                writer.text(step, samples.joined())
            else:
                writer.picture(step, samples.grid())

    def card(self, step: int, card: Mapping[str, Any]) -> None:
        """Write how a step's evaluation was measured, to cards/<step>.json."""
        write_json(self._cards / f"{step:08d}.json", card)

    def flush(self) -> None:
        """Flush all writers."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Close all writers, even if one of them fails."""
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)


class Files:
    """config.json, lines of metrics.jsonl, and samples/<step>.png or .txt."""

    def __init__(self, workdir: Path, config: Mapping[str, Any]) -> None:
        self._samples = workdir / "samples"
        write_json(workdir / "config.json", config)
        self._metrics = (workdir / "metrics.jsonl").open("a")

    def scalars(self, step: int, values: Mapping[str, float], times: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = {"step": step, **values, "time": {"at": at, **times}}
        self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
        self._metrics.flush()

    def picture(self, step: int, image: np.ndarray) -> None:
        """Write one PNG file."""
        write_png(self._samples / f"{step:08d}.png", image)

    def text(self, step: int, text: str) -> None:
        """Write one text file."""
        write_atomically(self._samples / f"{step:08d}.txt", text.encode())

    def flush(self) -> None:
        """Do nothing: each line was flushed when written."""

    def close(self) -> None:
        """Close metrics.jsonl."""
        self._metrics.close()


def cut_back(workdir: Path, step: int) -> None:
    """Drop what an earlier process recorded after `step`: lines of metrics.jsonl, samples and cards."""
    path = workdir / "metrics.jsonl"
    if path.exists():
        kept = [line for line in path.read_text(errors="replace").splitlines() if _step_of(line) <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
    # Files with other names are the user's.
    for file in [*workdir.glob("*"), *workdir.glob("samples/*"), *workdir.glob("cards/*")]:
        if re.fullmatch(_INTERRUPTED, file.name) or (re.fullmatch(_SAMPLE, file.name) and int(file.stem) > step):
            file.unlink()


def past_lines(workdir: Path, step: int) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl up to a step."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if _step_of(line) <= step]


def catch_up(tracker: Tracked, workdir: Path) -> None:
    """Send the tracker what the files contain and it lacks, step by step."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    past: list[tuple[int, Any]] = [(line.pop("step"), line) for line in lines]
    past += [(step, path) for step, path in _pictures(workdir) if tracker.lacks("picture", step)]
    for step, record in sorted(past, key=lambda entry: entry[0]):  # within a step, metrics first
        if isinstance(record, Path):
            tracker.picture(step, read_png(record))
        else:
            times = record.pop("time")
            tracker.scalars(step, record, {name: value for name, value in times.items() if name != "at"})


def _pictures(workdir: Path) -> Iterator[tuple[int, Path]]:
    for picture in (workdir / "samples").glob("*.png"):
        if re.fullmatch(_SAMPLE, picture.name):
            yield int(picture.stem), picture


def unlogged_figures(workdir: Path, step: int, meta: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a checkpoint whose evaluation was interrupted and that metrics.jsonl lacks; else {}."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text(errors="replace").splitlines() if meta.get("unlogged") and path.exists() else []
    return {} if any(_step_of(line) == step for line in lines) else meta.get("unlogged", {})


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, TypeError, KeyError):  # a line that a kill cut short, or not a record
        return float("inf")
