"""What a sweep's `sweep()` yields: overrides by grid, in step, or at random. Combine them with loops and `|`."""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gormley_vision.errors import UserError

Overrides = dict[str, Any]  # {'optimizer.learning_rate': 1e-3, ...}


def grid(choices: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """Every combination; the last key varies fastest."""
    _refuse_scalars("grid", choices)
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def zipped(choices: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """The first values of all keys, then the second, ...; all of one length."""
    _refuse_scalars("zipped", choices)
    lengths = {key: len(values) for key, values in choices.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"zipped: as many values of each key, and here are {lengths}")
    for values in zip(*choices.values(), strict=True):
        yield dict(zip(choices, values, strict=True))


def drawn(count: int, seed: int, distributions: Mapping[str, Callable[[random.Random], Any]]) -> Iterator[Overrides]:
    """`count` independent draws (Bergstra and Bengio 2012, random search); the same for the same seed, whatever the
    count: asking for more later keeps the first."""
    generator = random.Random(seed)
    for _ in range(count):
        yield {key: draw(generator) for key, draw in distributions.items()}


def _refuse_scalars(function: str, choices: Mapping[str, Sequence[Any]]) -> None:
    for key, values in choices.items():
        if not isinstance(values, Sequence):
            raise UserError(f"{function}: {key!r} needs a list of values, as in [{values!r}]")


def uniform(low: float, high: float) -> Callable[[random.Random], float]:
    """Evenly in [low, high], to three digits, since a run is named by its values."""
    return lambda generator: float(f"{low + (high - low) * generator.random():.3g}")


def log_uniform(low: float, high: float) -> Callable[[random.Random], float]:
    """Evenly in the logarithm: for rates and other scales."""
    if low <= 0 or high <= 0:
        raise UserError(f"log_uniform({low}, {high}): both must be above 0")
    return lambda generator: float(f"{low * math.exp(math.log(high / low) * generator.random()):.3g}")


def one_of(*choices: Any) -> Callable[[random.Random], Any]:
    """Each with the same probability."""
    return lambda generator: choices[int(len(choices) * generator.random())]
