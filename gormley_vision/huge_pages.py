"""Restarts a program once with memory in huge pages, which a training step on a CPU is a fifth faster with.

XLA allocates the temporary buffer of a step anew each time, and glibc returns it to the system each time: for a small
ViT 600,000 page faults a step. With pages of 2 MiB they are 2,000. glibc reads the setting when a process starts.
"""

import os
import sys
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb"
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages(mode: Path = _MODE) -> None:
    """Start this process again, with the same command, where that makes glibc ask for huge pages; else do nothing.

    Call this before anything slow. The process keeps its number, so nobody outside notices. A debugger would, and so
    a traced program is left alone, as is one whose environment sets the tunable (`GLIBC_TUNABLES=...hugetlb=0`: off).
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if _TUNABLE in given or sys.gettrace() is not None or not _has_setting() or not _on_request(mode):
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [given, f"{_TUNABLE}=1"]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _has_setting() -> bool:
    """Return whether the C library is a glibc with this setting, 2.35 or newer."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)
    except (AttributeError, ValueError):  # another system, another library
        return False


def _on_request(mode: Path) -> bool:
    """Return whether the kernel gives huge pages to those who ask; elsewhere it gives them to all or to none."""
    try:
        return "[madvise]" in mode.read_text()
    except OSError:
        return False
