"""Overrides for a sweep's `sweep()` to yield: a grid, zipped lists, or random. Combine them with loops and `|`."""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gormley_vision.errors import UserError

Overrides = dict[str, Any]  # {'optimizer.learning_rate': 1e-3, ...}


RUN_OF = "run of "


def run_of(overrides: Overrides) -> str:
    """Return a value for `init_from`: the folder of the sweep's run with these overrides, which is trained first.

    With "/NAME" appended, it is a file of that folder, for another key.

    Raises:
        UserError: not what `sweep()` yields.
    """
    if not isinstance(overrides, Mapping):
        raise UserError(f"run_of({overrides!r}): pass the overrides that sweep() yields for that run")
    return RUN_OF + json.dumps(overrides, sort_keys=True)


def grid(choices: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """Yield every combination; the last key varies fastest."""
    _refuse_scalars("grid", choices)
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def zipped(choices: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """Yield the first values of all keys, then the second, ...; all lists have the same length."""
    _refuse_scalars("zipped", choices)
    lengths = {key: len(values) for key, values in choices.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"zipped: give the same number of values for each key, not {lengths}")
    for values in zip(*choices.values(), strict=True):
        yield dict(zip(choices, values, strict=True))


def drawn(count: int, seed: int, distributions: Mapping[str, Callable[[random.Random], Any]]) -> Iterator[Overrides]:
    """Yield `count` independent draws (random search, Bergstra and Bengio 2012).

    They depend on the seed only: a larger count later repeats the first ones.
    """
    generator = random.Random(seed)
    for _ in range(count):
        yield {key: draw(generator) for key, draw in distributions.items()}


def _refuse_scalars(function: str, choices: Mapping[str, Sequence[Any]]) -> None:
    for key, values in choices.items():
        if not isinstance(values, Sequence):
            raise UserError(f"{function}: {key!r} needs a list of values, as in [{values!r}]")


def uniform(low: float, high: float) -> Callable[[random.Random], float]:
    """Draw uniformly from [low, high], rounded to three digits, since a run is named after its values."""
    return lambda generator: float(f"{low + (high - low) * generator.random():.3g}")


def log_uniform(low: float, high: float) -> Callable[[random.Random], float]:
    """Draw uniformly in the logarithm: for learning rates and other scales."""
    if low <= 0 or high <= 0:
        raise UserError(f"log_uniform({low}, {high}): both must be above 0")
    return lambda generator: float(f"{low * math.exp(math.log(high / low) * generator.random()):.3g}")


def one_of(*choices: Any) -> Callable[[random.Random], Any]:
    """Draw each choice with the same probability."""
    return lambda generator: choices[int(len(choices) * generator.random())]
