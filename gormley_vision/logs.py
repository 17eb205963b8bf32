"""Where log lines go: the package's own to the console and run.log, and libraries' warnings with them.

Nothing that a library warns of is silenced: each warning becomes one line of ours, once. What a library logs of an
error that it also raises, and the search for accelerators that are not there, only run.log keeps.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import absl.logging

log = logging.getLogger(__name__)
_PACKAGE = logging.getLogger("gormley_vision")
# Of every start of a machine that lacks this accelerator, whose library is installed.
_EXPECTED = ("Unable to initialize backend",)


def to_console(handler: logging.Handler) -> None:
    """Send the package's lines and libraries' warnings to `handler`, and nowhere else as yet."""
    root = logging.getLogger()
    for logger, kinds in ((_PACKAGE, logging.Handler), (root, absl.logging.ABSLHandler | _Libraries)):
        for old in [handler for handler in logger.handlers if isinstance(handler, kinds)]:
            logger.removeHandler(old)
            old.close()
    _PACKAGE.setLevel(logging.INFO)
    _PACKAGE.propagate = False
    _PACKAGE.addHandler(handler)
    absl.logging.set_verbosity(absl.logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # traces of what orbax raises besides
    logging.captureWarnings(True)
    root.addHandler(_Libraries())
    sys.unraisablehook = _unraisable


def to_file(path: Path) -> None:
    """Send all of it, with times, to a file besides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _PACKAGE.addHandler(file)


class _Libraries(logging.Handler):
    """Turn other packages' warnings into lines of this one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        for_file = record.exc_info is not None or record.levelno >= logging.ERROR or text.startswith(_EXPECTED)
        if text not in self._said:
            self._said.add(text)
            log.log(record.levelno, "%s: %s", record.name, text, extra={"for_file": for_file})


class _LogFile(logging.FileHandler):
    """Raise what goes wrong, a full disk above all, where logging would print a trace and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # called while the error is being handled


def _unraisable(fault: Any) -> None:
    """Python's hook, but for tensorstore's callbacks, which outlive orbax's event loop when a write failed."""
    if str(fault.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(fault)
