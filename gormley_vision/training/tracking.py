"""A run in an experiment tracker: under one id, each step once, and at no risk to the run.

Each step is noted in `trackers/<name>.jsonl` in the run's folder before it is sent. A process that continues the
run repeats the steps since the last checkpoint, and sends none of them twice.
"""

import contextlib
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gormley_vision.files import write_atomically
from gormley_vision.training.trackers import TRACKERS, Tracker

log = logging.getLogger(__name__)


class Tracked:
    """A tracker as one of a run's writers. Its first failure logs a warning, and ends its use in this process."""

    def __init__(self, name: str, workdir: Path, config: Mapping[str, Any]) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        try:
            self._note = Note(workdir / "trackers" / f"{name}.jsonl")
            self._tracker = TRACKERS[name](workdir, self._note.run_id, config)
            log.info("log.tracker=%s: run %s; %s", name, self._note.run_id, self._tracker.where)
        except Exception as error:
            self._give_up(error)

    def lacks(self, kind: str, step: int) -> bool:
        """Return whether the metrics ('scalars') or the picture of a step are still to be sent."""
        return self._tracker is not None and step > self._note.sent[kind]

    def scalars(self, step: int, values: Mapping[str, float], times: Mapping[str, float]) -> None:
        """Send one point of each curve, speeds included."""
        values = {**values, **{f"time/{name}": value for name, value in times.items()}}
        self._send("scalars", step, lambda tracker: tracker.scalars(step, values))

    def picture(self, step: int, image: np.ndarray) -> None:
        """Send one picture; a greyscale one in three channels, as not all trackers accept one channel."""
        coloured = np.broadcast_to(image, (*image.shape[:2], 3))
        self._send("picture", step, lambda tracker: tracker.picture(step, coloured))

    def text(self, step: int, text: str) -> None:
        """Do nothing: trackers have no common form for texts, which are in samples/ and in TensorBoard."""

    def flush(self) -> None:
        """Do nothing: a tracker sends at its own pace."""

    def close(self) -> None:
        """End the tracker."""
        if self._tracker is not None:
            try:
                self._tracker.close()
            except Exception as error:
                self._give_up(error)

    def _send(self, kind: str, step: int, send: Callable[[Tracker], None]) -> None:
        if self._tracker is None or not self.lacks(kind, step):
            return
        before = self._note.sent[kind]
        try:
            self._note.write(kind, step)  # before sending: a kill in between loses a point, but never doubles one
            send(self._tracker)
        except Exception as error:
            self._give_up(error)
            with contextlib.suppress(OSError):
                self._note.write(kind, before)

    def _give_up(self, error: Exception) -> None:
        self._tracker = None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning(
            "log.tracker=%s failed, and training continues without it (%s); metrics.jsonl and samples/ have "
            "everything, and the next process of this run sends what is missing",
            self._name,
            reason[:300],
        )


class Note:
    """What a tracker has received of a run: the run's id, and the last step of each kind that was sent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.run_id, self.sent = uuid.uuid4().hex[:12], {"scalars": 0, "picture": 0}
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # a line that a kill cut short: its step was not sent
                continue
            self.run_id = entry.pop("run_id", self.run_id)
            self.sent |= entry
        # Replace all lines by one. The id is on disk before the tracker sees it.
        write_atomically(path, (json.dumps({"run_id": self.run_id, **self.sent}) + "\n").encode())

    def write(self, kind: str, step: int) -> None:
        """Append a line that survives a kill of the process (not necessarily of the machine)."""
        self.sent[kind] = step
        with self._path.open("a") as file:
            file.write(json.dumps({kind: step}) + "\n")
