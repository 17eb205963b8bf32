"""Quietens libtpu on machines without a TPU, where planning needs it: it looks for chips as soon as jax starts."""

import os
from pathlib import Path

# Do not look for chips or a metadata server, nor log from C++ that none were found.
QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "4",
    "TPU_STDERR_LOG_LEVEL": "4",
}
_GOOGLE, _NETWORK_CARD = "0x1ae0", "0x0042"


def quieten(root: Path = Path("/")) -> None:
    """Set libtpu's environment variables, unless this machine may have a chip: then its messages matter."""
    if not _may_have_chips(root):
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)


def _may_have_chips(root: Path) -> bool:
    if any(root.glob("dev/accel*")) or any(root.glob("dev/vfio/[0-9]*")):
        return True
    cards = root.glob("sys/bus/pci/devices/*")
    return any(_read(card / "vendor") == _GOOGLE and _read(card / "device") != _NETWORK_CARD for card in cards)


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
