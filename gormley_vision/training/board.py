"""TensorBoard's event files."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Board:
    """Writes a TensorBoard event file from this thread.

    tensorboardX's SummaryWriter has a queue and a thread, and a kill loses what the queue contains.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # takes 1 s to import, so only when needed
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in order of their names, which otherwise begin with the time: clocks can go backwards.
        number = len(list(folder.iterdir()))
        self._writer = EventsWriter(str(folder / f"events.{number:04d}"), f".{step}")
        # This makes TensorBoard drop points in earlier files from this step on.
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float], times: Mapping[str, float]) -> None:
        """Write one point of each curve; no speeds, so that a run's curves are the same however often it was killed."""
        from tensorboardX import summary

        for name, value in values.items():
            self._write(step, summary=summary.scalar(name, value))

    def picture(self, step: int, image: np.ndarray) -> None:
        """Write one picture, uint8 [H, W, C]."""
        from tensorboardX import summary

        self._write(step, summary=summary.image("samples", image, dataformats="HWC"))

    def text(self, step: int, text: str) -> None:
        """Write one text."""
        from tensorboardX import summary

        self._write(step, summary=summary.text("samples", text))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
