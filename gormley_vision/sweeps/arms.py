"""Groups runs that only differ in their seed into arms, each with a mean and a deviation."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def swept_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys, other than the seed, in which flat configs differ, sorted."""
    keys = {key for config in configs for key in config}
    return sorted(key for key in keys - {"seed"} if any(c.get(key) != configs[0].get(key) for c in configs))


def arms_of(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return {'vit.depth=3, vit.width=96': indices of its configs, ...}; 'all' if only the seed differs."""
    keys = swept_keys(configs)
    arms: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        arms.setdefault(", ".join(f"{key}={config.get(key)}" for key in keys) or "all", []).append(i)
    return arms


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and the standard deviation of a sample (0 for one value)."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
