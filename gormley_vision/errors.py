"""The one exception that means "the user can fix this", and how programs show it."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence

from gormley_vision.signals import at_once

# Of a path, a disk or a limit of the system: what a person can put right, and no fault of ours.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FIXABLE = (
    *_FULL,
    *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY, errno.EIO, errno.ESTALE, errno.EXDEV),
    *(errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.EOPNOTSUPP),
)


class UserError(Exception):
    """A mistake in a command, config, data set or run folder.

    The message names what is wrong and what to type instead. Command-line programs print it without a
    trace and exit with status 2, and so an OSError of a path, a disk or a limit that a person can put right; every
    other exception is ours and keeps its trace.
    """


def listed(names: Sequence[str]) -> str:
    """The first ten names, and how many more there are: for messages."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def nearest_multiple(number: int, multiple: int) -> int:
    """The multiple to type instead: at least one `multiple`."""
    return max(1, round(number / multiple)) * multiple


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn a UserError, a full or read-only disk, Ctrl-C and SIGTERM into one message and an exit status.

    Output is made to outlive its readers first (`protect_output`). What takes time to import is imported within.
    """
    protect_output()
    try:
        try:
            with at_once():
                yield
        except SystemExit:
            sys.stdout.flush()  # what finds no room is told here
            raise
        sys.stdout.flush()
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in _FIXABLE or (error.errno == errno.ENOENT and not error.filename and _folder()):
            raise
        _refuse(f"{_told(error)}; put that right, then run the same command again")


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    raise SystemExit(2) from None


def _told(error: OSError) -> str:
    """What the system says, and what it means."""
    if error.errno == errno.ENOENT and not _folder():
        return "the folder you are in was removed: cd to one that is there"
    blocked = error.errno in (errno.EEXIST, errno.ENOTDIR)
    return f"{error} (a file is where a folder should be)" if blocked else str(error)


def _folder() -> str:
    """The current one; '' where it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Let a full disk be named: what is flushed to a file fails without telling which."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = os.fspath(path)
        raise


def protect_output(product: bool = True) -> None:
    """Make standard output and error streams that outlive whoever reads them: a terminal or `tee` that is gone.

    A full disk is an error of standard output, where that is the program's `product`; what comes on the way is dropped.
    A missing stream (`2>&-`) becomes /dev/null, or the next file opened would take its number and every message.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    sys.stdout, sys.stderr = _protected(sys.stdout, product), _protected(sys.stderr, product=False)


def _protected(stream, product: bool):
    """The stream over a descriptor that swallows what cannot be written; itself where it has none, as under a test."""
    try:
        number = stream.fileno()
        buffered = hasattr(stream.buffer, "raw")  # not with PYTHONUNBUFFERED
        outlet = stream.buffer.raw if buffered else stream.buffer
        if isinstance(outlet, _Outlet):
            outlet.product = product
            return stream
        stream.flush()
    except (AttributeError, OSError, ValueError):
        return stream
    outlet = _Outlet(number, "wb", closefd=False)
    outlet.product = product
    return io.TextIOWrapper(
        io.BufferedWriter(outlet) if buffered else outlet,
        encoding=stream.encoding,
        errors="backslashreplace",  # a name that is no text in the terminal's encoding
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Outlet(io.FileIO):
    """A descriptor whose writes do not fail: what has no reader any more is dropped, and so is what has no room.

    Where it is the program's product, no room is an error, told once.
    """

    product = False

    def write(self, data) -> int:
        """Write what can be written; all of it counts as written."""
        try:
            written = super().write(data)
        except OSError as error:
            gone = error.errno in (errno.EPIPE, errno.EIO)  # for good: the reader or the terminal
            if gone or self.product:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            if self.product and not gone:
                error.filename = "standard output"
                raise
            return len(data)
        return len(data) if written is None else written
