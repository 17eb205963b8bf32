"""What bit-exactness depends on: processor, cores, versions, XLA flags, mesh; and the source commit."""

import importlib.metadata
import os
import subprocess
from pathlib import Path
from typing import Any

import jax


def describe_environment(mesh: jax.sharding.Mesh) -> dict[str, str]:
    """Return the conditions under which a resumed run is bit-identical to one that was never stopped."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "device": jax.devices()[0].device_kind,
        "mesh": str(dict(mesh.shape)),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def code() -> dict[str, Any]:
    """Return the versions and the source commit, for cards of figures."""
    packages = ("jax", "flax", "numpy", "scipy", "pillow")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"versions": versions, "commit": source_commit()}


def source_commit() -> str:
    """Return the commit of this checkout, with '+changes' appended if files differ; '' outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):  # without git the commit is unknown, and the run continues
            return ""
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return commit + ("+changes" if commit and git("status", "--porcelain", "--untracked-files=no") else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))]
    return names[0] if names else "unknown"
