"""The exception that means "the user can fix this", and how programs show it."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence

from gormley_vision.signals import at_once

# Errors of a path, a disk or a system limit, which the user can fix: not bugs.
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
    traceback and exit with status 2. They do the same for an OSError that the user can fix (a path, a disk, a limit).
    Any other exception is a bug and keeps its traceback.
    """


def listed(names: Sequence[str]) -> str:
    """Join the first ten names, and say how many more there are: for messages."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def nearest_multiple(number: int, multiple: int) -> int:
    """Return the multiple of `multiple` nearest to `number`, at least `multiple` itself."""
    return max(1, round(number / multiple)) * multiple


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn a UserError, a full or read-only disk, Ctrl-C and SIGTERM into one message and an exit status.

    First makes output independent of its readers (`protect_output`). Import slow modules inside this context.
    """
    protect_output()
    try:
        try:
            with at_once():
                yield
        except SystemExit:
            sys.stdout.flush()  # so that a full disk is reported here
            raise
        sys.stdout.flush()
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in _FIXABLE or (error.errno == errno.ENOENT and not error.filename and _current_folder()):
            raise
        _refuse(f"{_message_of(error)}; fix that, then run the same command again")


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    raise SystemExit(2) from None


def _message_of(error: OSError) -> str:
    """Return the system's message, explained if it is unclear."""
    if error.errno == errno.ENOENT and not _current_folder():
        return "the folder you are in was removed: cd to one that exists"
    blocked = error.errno in (errno.EEXIST, errno.ENOTDIR)
    return f"{error} (a file is where a folder should be)" if blocked else str(error)


def _current_folder() -> str:
    """Return the current folder; '' if it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Name `path` in errors of a full disk: a failing flush does not say which file it was."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = os.fspath(path)
        raise


def protect_output(product: bool = True) -> None:
    """Let standard output and error survive their readers: a terminal or `tee` that is gone.

    A full disk is an error for standard output if that is the program's `product`; other output is dropped. A missing
    stream (`2>&-`) becomes /dev/null, or the next file opened would get its number and every message.
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
    """Return the stream over a descriptor that drops what cannot be written; unchanged without one, as in a test."""
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
        errors="backslashreplace",  # for names that the terminal's encoding lacks
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Outlet(io.FileIO):
    """A descriptor whose writes do not fail: output is dropped if its reader is gone or the disk is full.

    If it is the program's product, a full disk raises an error, once.
    """

    product = False

    def write(self, data) -> int:
        """Write what can be written; report all of it as written."""
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
