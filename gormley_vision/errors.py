"""The one exception that means "the user can mend this", and how programs show it."""

import contextlib
import errno
import sys
from collections.abc import Iterator


class UserError(Exception):
    """A mistake in a command, config, data set or run folder.

    The message names what is wrong and what to type instead. Command-line programs print it without a
    trace and exit with status 2; every other exception is ours and keeps its trace.
    """


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn a UserError, a full or read-only disk and Ctrl-C into one message and an exit status."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM):
            raise
        print(f"error: {error}; mend it, then run the same command again", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
