"""Where log lines go: the package's own and libraries' warnings go to the console and run.log.

No warning of a library is silenced: each becomes one line of ours, once. Only run.log keeps what a library logs about
an error that it also raises, and about accelerators that this machine lacks.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import absl.logging

log = logging.getLogger(__name__)
_PACKAGE = logging.getLogger("gormley_vision")
# Logged at every start if an accelerator's library is installed but not the accelerator.
_EXPECTED = ("Unable to initialize backend",)


def to_console(handler: logging.Handler) -> None:
    """Send the package's lines and libraries' warnings to `handler`, and nowhere else."""
    root = logging.getLogger()
    for logger, kinds in ((_PACKAGE, logging.Handler), (root, absl.logging.ABSLHandler | _Libraries)):
        for old in [handler for handler in logger.handlers if isinstance(handler, kinds)]:
            logger.removeHandler(old)
            old.close()
    _PACKAGE.setLevel(logging.INFO)
    _PACKAGE.propagate = False
    _PACKAGE.addHandler(handler)
    absl.logging.set_verbosity(absl.logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # tracebacks of what orbax also raises
    logging.captureWarnings(True)
    root.addHandler(_Libraries())
    sys.unraisablehook = _unraisable


def to_file(path: Path) -> None:
    """Also send all lines, with times, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _PACKAGE.addHandler(file)


class _Libraries(logging.Handler):
    """Turn other packages' warnings into lines of this one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        for_file = record.exc_info is not None or record.levelno >= logging.ERROR or text.startswith(_EXPECTED)
        if text not in self._seen:
            self._seen.add(text)
            log.log(record.levelno, "%s: %s", record.name, text, extra={"for_file": for_file})


class _LogFile(logging.FileHandler):
    """Raises errors, such as a full disk, of which logging would only print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # called while the error is being handled


def _unraisable(fault: Any) -> None:
    """Ignore tensorstore's callbacks, which outlive orbax's event loop after a failed write; else Python's own hook."""
    if str(fault.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(fault)
