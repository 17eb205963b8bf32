"""Times sides against each other: in turn, in one process, as ratios; alone or while another process copies memory."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_COPIES = """
import numpy as np
source = np.zeros(1 << 25)  # 256 MiB: no cache holds it
target = np.empty_like(source)
while True:
    np.copyto(target, source)
"""


@contextlib.contextmanager
def copying(wanted: bool) -> Iterator[None]:
    """While the block runs, another process copies memory if `wanted`: a stand-in for a slower machine."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", _COPIES])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def interleaved(sides: Mapping[str, Callable[[], object]], turns: int, warmup: int = 2) -> dict[str, list[float]]:
    """Run each side once a turn. Returns the seconds of each, in turns after the warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + warmup):
        for name, run in sides.items():
            time.sleep(0.3)  # threads of the side before may still spin
            began = time.perf_counter()
            run()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def report(seconds: Mapping[str, list[float]], pairs: Mapping[str, str]) -> dict[str, Any]:
    """Print and return the seconds of each side, and the ratio of each pair {peer: side of ours}."""
    figures: dict[str, Any] = {"seconds": {}, "ratios": {}}
    for name, times in seconds.items():
        figures["seconds"][name] = {"min": round(min(times), 4), "median": round(statistics.median(times), 4)}
        print(f"{name:<30} min {min(times):.3f} s  median {statistics.median(times):.3f} s")
    for peer, mine in pairs.items():
        of_pairs = statistics.median(a / b for a, b in zip(seconds[mine], seconds[peer], strict=True))
        of_minima = min(seconds[mine]) / min(seconds[peer])
        figures["ratios"][f"{mine} / {peer}"] = {
            "median of pairs": round(of_pairs, 3),
            "of minima": round(of_minima, 3),
        }
        print(f"{mine} / {peer}: {of_pairs:.2f} (median of pairs), {of_minima:.2f} (of minima)")
    return figures
