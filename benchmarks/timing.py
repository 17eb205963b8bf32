"""Times sides against each other, in turn, in one process: alone, and while another process copies memory."""

import contextlib
import importlib.metadata
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from gormley_vision.planning.topology import measured
from gormley_vision.training.environment import describe_environment, source_commit

_TURN = 0.25  # seconds
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


def interleaved(sides: Mapping[str, Callable[[], object]], turns: int, warmup: int) -> dict[str, list[float]]:
    """Run each side a quarter of a second a turn, or once. Returns seconds a step of each, in turns after the warm-up.

    A step before it is not timed: it has to find its memory anew after another library has run, which takes XLA, whose
    step allocates all its memory at once, up to a second that no training run pays. A few milliseconds alone would tell
    how fast threads wake up after a pause, and not how fast a run is. Each turn starts with another side.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides.items())
    for turn in range(turns + warmup):
        order.append(order.pop(0))
        for name, run in order:
            time.sleep(0.3)  # threads of the side before may still spin
            run()
            began, steps, taken = time.perf_counter(), 0, 0.0
            while taken < _TURN:
                run()
                steps, taken = steps + 1, time.perf_counter() - began
            if turn >= warmup:
                seconds[name].append(taken / steps)
    return seconds


def compare(
    sides: Mapping[str, Callable[[], object]], pairs: Mapping[str, str], turns: int, needed_gflop: float
) -> dict[str, Any]:
    """Time all sides in both conditions, and print and return the figures with their conditions.

    Args:
        pairs: {peer: side of ours} to compare.
        turns: timed runs of each side in each condition.
        needed_gflop: of products, in one run.
    """
    peak = measured(jax.devices()[0]).flops / 1e9
    print(
        f"a 2048^3 matrix product runs at {peak:.0f} GFLOP/s: the lower bound of a step is {needed_gflop / peak:.3f} s"
    )
    figures: dict[str, Any] = {
        "commands": [shlex.join(["python", *sys.argv])],
        "environment": describe_environment(jax.make_mesh((1,), ("data",))),
        "commit": source_commit(),
        "torch": importlib.metadata.version("torch"),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "matrix_product_gflops": round(peak),
        "needed_gflop": round(needed_gflop, 1),
        "turns": turns,
    }
    for condition, busy in (("alone", False), ("another process copies memory", True)):
        print(f"\n{condition}")
        with copying(busy):
            figures[condition] = report(interleaved(sides, turns, warmup=1 if busy else 3), pairs)
    return figures


def report(seconds: Mapping[str, list[float]], pairs: Mapping[str, str]) -> dict[str, Any]:
    """Print and return the seconds of each side, and the ratio of each pair."""
    figures: dict[str, Any] = {"seconds": {}, "ratios": {}}
    for name, times in seconds.items():
        figures["seconds"][name] = {"min": round(min(times), 4), "median": round(statistics.median(times), 4)}
        print(f"{name:<30} min {min(times):.3f} s  median {statistics.median(times):.3f} s")
    for peer, mine in pairs.items():
        of_pairs = statistics.median(a / b for a, b in zip(seconds[mine], seconds[peer], strict=True))
        of_minima = min(seconds[mine]) / min(seconds[peer])
        figures["ratios"][peer] = {"median_of_pairs": round(of_pairs, 3), "of_minima": round(of_minima, 3)}
        print(f"{mine} over {peer}: {of_pairs:.2f} (median of pairs), {of_minima:.2f} (of minima)")
    return figures
