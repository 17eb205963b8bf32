"""SIGTERM, SIGINT and SIGHUP: the first asks the loop to save and end, one that comes later ends at once.

Before the loop there is nothing to save, and the first one ends the process (`at_once`).
"""

import contextlib
import os
import signal
import threading
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
    # A signal is this handler's alone: `at_once` would learn of it late, after the block, and end the process for it.
    watched = signal.set_wakeup_fd(-1) if handler is not _end else None
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
        if watched is not None:
            signal.set_wakeup_fd(watched, warn_on_full_buffer=False)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Within the block the signals end the process with a line and 128 + n, but where `handled` has taken over.

    A thread does it: Python's handlers wait for native code, a compiler's for minutes, and what they raise can be
    swallowed on its way, as by jax's callback of the garbage collector.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # its signals are not ours
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    try:
        with handled(_end):
            yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # the watcher's end


def _watch(reader: int) -> None:
    while number := os.read(reader, 1):
        if signal.getsignal(number[0]) is _end:
            _end(number[0], None)
    os.close(reader)


_ending = threading.Lock()


def _end(number: int, frame: FrameType | None) -> None:
    if not _ending.acquire(blocking=False):  # the watcher and Python's own call come together
        return
    cursor = "\x1b[?25h\n" if os.isatty(2) else ""  # which a progress bar hides
    with contextlib.suppress(OSError):
        os.write(2, f"{cursor}stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


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
