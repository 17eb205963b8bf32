"""SIGTERM, SIGINT and SIGHUP: the first asks the loop to save and end, one that comes later ends at once."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

# Supervisors and shells send one request several times, within milliseconds: only a later one is impatience.
PATIENCE = 1.0  # seconds


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block `handler` gets the three signals, but for those ignored already, as SIGHUP is under `nohup`."""
    wanted = [
        number
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


class Interrupts:
    """`signal` is 0 until one of them arrives; `with handled(interrupts.receive)`."""

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Note the first signal and say so; end the process at a later one."""
        now = time.monotonic()
        if not self.signal:
            self.signal, self._since = number, now
            with contextlib.suppress(OSError):  # whoever read the output may be gone: that must not cost the state
                os.write(2, b"\nfinishing this step, saving, ending; after a second, the same again ends at once\n")
        elif number != signal.SIGHUP and now - self._since > PATIENCE:  # nobody is behind a closed terminal
            os._exit(128 + number)  # finished checkpoints stay: nothing is lost but the steps since
