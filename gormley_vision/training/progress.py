"""Progress: a bar on a terminal, plain log lines elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

log = logging.getLogger(__name__)


def make_console() -> Console:
    """Return a console on standard error, with colours and bars only on a terminal, whatever FORCE_COLOR says."""
    terminal = bool(sys.stderr and sys.stderr.isatty())
    return Console(stderr=True, force_terminal=terminal, force_interactive=None if terminal else False)


console = make_console()


def console_handler() -> logging.Handler:
    """Return the handler that shows log lines: above the bar on a terminal, plain lines elsewhere."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="[%H:%M:%S]")
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: not getattr(record, "for_file", False))
    return handler


class TrainingProgress:
    """Shows steps done of `total`, examples/s, time left, and the latest metrics."""

    def __init__(self, start: int, total: int, images_per_step: int) -> None:
        self.total, self.images_per_step = total, images_per_step
        self._first, self._began = start, time.perf_counter()
        self._last, self._last_time, self.images_per_second = start, self._began, 0.0
        self._text = Text()
        self._bar = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("", total=total, completed=start)
        self._live = Live(Group(self._bar, self._text), console=console) if console.is_terminal else None
        if self._live is not None:
            self._live.start()

    def advance(self, step: int) -> None:
        """Note that a step was dispatched."""
        if step == self._first + 1:  # the first step compiles: measure time after it
            self._last, self._last_time = step, time.perf_counter()
        self._bar.update(self._task, completed=step)

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Show the metrics of a step. They have arrived, so all steps up to it are done."""
        now = time.perf_counter()
        if step > self._last:
            self.images_per_second = (step - self._last) * self.images_per_step / (now - self._last_time)
            self._last, self._last_time = step, now
        shown = {name: value for name, value in values.items() if not name.startswith("gradient_norm")}
        text = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
        if self._live is not None:
            self._text.plain = f"{self.images_per_second:.0f} examples/s  {text}"
            return
        seconds = (self.total - step) * self.images_per_step / self.images_per_second if self.images_per_second else 0
        left = f"{int(seconds) // 60}:{int(seconds) % 60:02d} left" if seconds else ""
        log.info("step %d/%d  %.0f examples/s  %s  %s", step, self.total, self.images_per_second, left, text)

    def close(self) -> None:
        """Stop updating the bar, and leave it on the screen."""
        if self._live is not None:
            self._live.stop()


@contextlib.contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that shows a bar on a terminal, and a line every ten seconds elsewhere."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, visible=False)
        began = last = time.perf_counter()

        def report(done: int, total: int) -> None:
            nonlocal last
            bar.update(task, completed=done, total=total, visible=True)
            if not console.is_terminal and time.perf_counter() - last > 10:
                last = time.perf_counter()
                left = (last - began) * (total - done) / max(done, 1)
                log.info("%s: %d of %d, %.0f s left", what, done, total, left)

        yield report
