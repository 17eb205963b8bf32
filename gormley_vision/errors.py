"""The one exception that means "the user can mend this", and how programs show it."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence

# Of a path or a disk: what a person can put right, and no fault of ours.
_MENDABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


class UserError(Exception):
    """A mistake in a command, config, data set or run folder.

    The message names what is wrong and what to type instead. Command-line programs print it without a
    trace and exit with status 2; every other exception is ours and keeps its trace.
    """


def listed(names: Sequence[str]) -> str:
    """The first ten names, and how many more there are: for messages."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def nearest_multiple(number: int, multiple: int) -> int:
    """The multiple to type instead: at least one `multiple`."""
    return max(1, round(number / multiple)) * multiple


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn a UserError, a full or read-only disk and Ctrl-C into one message and an exit status.

    Output is made to outlive its readers first (`protect_output`).
    """
    protect_output()
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        print(f"error: {error}; put that right, then run the same command again", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None


def protect_output() -> None:
    """Make standard output and error streams whose writes never fail: a run outlives the terminal or `tee` it spoke to.

    A missing one (`2>&-`) becomes /dev/null, or the next file opened would take its number and every message.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    sys.stdout, sys.stderr = _protected(sys.stdout), _protected(sys.stderr)


def _protected(stream):
    """The stream over a descriptor that swallows what cannot be written; itself where it has none, as under a test."""
    try:
        number = stream.fileno()
        buffered = hasattr(stream.buffer, "raw")  # not with PYTHONUNBUFFERED
        if isinstance(stream.buffer.raw if buffered else stream.buffer, _Outlet):
            return stream
        stream.flush()
    except (AttributeError, OSError, ValueError):
        return stream
    outlet = _Outlet(number, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(outlet) if buffered else outlet,
        encoding=stream.encoding,
        errors="backslashreplace",  # a name that is no text in the terminal's encoding
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Outlet(io.FileIO):
    """A descriptor whose writes never fail: what has no reader any more, or no room, is dropped."""

    def write(self, data) -> int:
        """Write what can be written; all of it counts as written."""
        try:
            written = super().write(data)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # for good: the reader or the terminal is gone
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            return len(data)
        return len(data) if written is None else written
