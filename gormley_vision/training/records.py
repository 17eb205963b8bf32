"""What a run leaves for people: metrics.jsonl, TensorBoard, sample grids. All cut back on resume."""

import datetime
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.files import write_atomically
from gormley_vision.samples import Pictures, Samples

RECORDS = ("metrics.jsonl", "samples", "tensorboard")  # what a run's folder has of its steps, besides checkpoints
_SAMPLE = r"\d{8}\.(?:png|txt)"
_INTERRUPTED = rf"\.(?:metrics\.jsonl|config\.json|data\.json|{_SAMPLE})\.\d+"  # of `write_atomically`, by a kill


class Records:
    """The writers of one run, which continues after `step` (0: from the start)."""

    def __init__(self, workdir: Path, step: int) -> None:
        self.workdir = workdir
        cut_back(workdir, step)
        self._metrics = (workdir / "metrics.jsonl").open("a")
        self._board = Board(workdir / "tensorboard", step)

    def scalars(
        self, step: int, values: Mapping[str, float], images_per_second: float, waiting_for_data: float
    ) -> None:
        """One line of metrics.jsonl. All but `time` is the same however often the run was killed."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        times = {
            "at": at,
            "images_per_second": round(images_per_second, 1),
            "waiting_for_data": round(waiting_for_data, 4),
        }
        self._metrics.write(json.dumps({"step": step, **values, "time": times}, allow_nan=False) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._board.scalar(step, name, value)

    def samples(self, step: int, samples: Samples) -> None:
        """`samples/<step>.png` or `.txt`, and the same in TensorBoard."""
        samples.write(self.workdir / "samples" / f"{step:08d}{samples.suffix}")
        if isinstance(samples, Pictures):
            self._board.image(step, "samples", samples.grid())
        else:
            self._board.text(step, "samples", samples.joined())

    def flush(self) -> None:
        """Hand everything to the system: what precedes a checkpoint outlives a kill after it."""
        self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        self._metrics.close()
        self._board.close()


class Board:
    """TensorBoard's event file, written by this thread.

    tensorboardX's SummaryWriter has a queue and a thread, and a kill loses what is in them.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # 1 s to import: not before it is needed
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files by name. Time comes next in it, and a clock set back would put this one first.
        number = len(list(folder.iterdir()))
        self._writer = EventsWriter(str(folder / f"events.{number:04d}"), f".{step}")
        # TensorBoard drops what earlier files say of steps from here on.
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, step: int, name: str, value: float) -> None:
        """One point of a curve."""
        from tensorboardX import summary

        self._write(step, summary=summary.scalar(name, value))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """One picture, uint8 [H, W, C]."""
        from tensorboardX import summary

        self._write(step, summary=summary.image(name, image, dataformats="HWC"))

    def text(self, step: int, name: str, text: str) -> None:
        """One text."""
        from tensorboardX import summary

        self._write(step, summary=summary.text(name, text))

    def flush(self) -> None:
        """To the system."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))


def cut_back(workdir: Path, step: int) -> None:
    """Drop what an earlier process recorded after `step`: lines of metrics.jsonl, and samples."""
    path = workdir / "metrics.jsonl"
    if path.exists():
        kept = [line for line in path.read_text(errors="replace").splitlines() if _step_of(line) <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
    for file in [*workdir.glob("*"), *workdir.glob("samples/*")]:  # other names are other people's
        if re.fullmatch(_INTERRUPTED, file.name) or (re.fullmatch(_SAMPLE, file.name) and int(file.stem) > step):
            file.unlink()


def unlogged_figures(workdir: Path, step: int, meta: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the step of a checkpoint whose evaluation was cut short, until metrics.jsonl has its line; else {}."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text(errors="replace").splitlines() if meta.get("unlogged") and path.exists() else []
    return {} if any(_step_of(line) == step for line in lines) else meta.get("unlogged", {})


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, TypeError, KeyError):  # the line that the kill cut short, or no record
        return float("inf")
