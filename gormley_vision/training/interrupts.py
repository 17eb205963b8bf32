"""SIGTERM and SIGINT: the first asks the loop to save and end, the second ends at once."""

import os
import signal
from types import FrameType, TracebackType


class Interrupts:
    """Within `with Interrupts() as interrupts`, `interrupts.signal` is 0 until one of the two arrives."""

    def __init__(self) -> None:
        self.signal = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + number)  # whole checkpoints are whole: nothing is lost but the steps since
        self.signal = number
        os.write(2, b"\nfinishing this step, saving, ending; the same signal again ends at once\n")
