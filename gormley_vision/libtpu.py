"""TPU's library where it is installed and no TPU is: for planning, say. It looks for chips as soon as jax does."""

import os
from pathlib import Path

# It must not look for chips or a metadata server, nor tell from C++ that it found none.
QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "4",
    "TPU_STDERR_LOG_LEVEL": "4",
}


def quieten(devices: Path = Path("/dev")) -> None:
    """Set what it reads of the environment, unless a chip may be here: what C++ prints then is about it."""
    if not any(devices.glob("accel*")) and not any(devices.glob("vfio/[0-9]*")):
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
