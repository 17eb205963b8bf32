"""SIGTERM, SIGINT and SIGHUP: the first asks the loop to save and exit, a later one exits at once.

Before the loop there is nothing to save, and the first signal ends the process (`at_once`).
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# Supervisors and shells repeat a signal within milliseconds: only a later one is a second request.
PATIENCE = 1.0  # seconds


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` receive the three signals within the block, except ignored ones (SIGHUP under `nohup`)."""
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
    """Let the signals end the process within the block, with a line and status 128 + n, unless `handled` is active.

    A thread does this: Python's handlers wait for native code (minutes, for a compiler), and what they raise can be
    swallowed, for instance in jax's garbage collection callback.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a child handles its own signals
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    try:
        with handled(_end):
            yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the thread


def _watch(reader: int) -> None:
    while number := os.read(reader, 1):
        if signal.getsignal(number[0]) is _end:
            _end(number[0], None)
    os.close(reader)


_ending = threading.Lock()


def _end(number: int, frame: FrameType | None) -> None:
    if not _ending.acquire(blocking=False):  # the thread and Python's handler may both call this
        return
    cursor = "\x1b[?25h\n" if os.isatty(2) else ""  # show it: a progress bar hides it
    with contextlib.suppress(OSError):
        os.write(2, f"{cursor}stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


class Interrupts:
    """Remembers the first signal (else 0). Use `with handled(interrupts.receive)`."""

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Note and announce the first signal; end the process at a later one."""
        now = time.monotonic()
        if not self.signal:
            self.signal, self._since = number, now
            with contextlib.suppress(OSError):  # the output's reader may be gone: still save the state
                os.write(2, b"\nfinishing this step, then saving; after a second, the same again ends at once\n")
        elif number != signal.SIGHUP and now - self._since > PATIENCE:  # SIGHUP: a closed terminal is not impatience
            os._exit(128 + number)  # only the steps since the last checkpoint are lost
