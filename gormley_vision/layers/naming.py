"""How a layer names the axes of a parameter. gormley_vision/axes.py tells the names, and what follows from them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn


def named(initial: Callable[..., Any], *names: str) -> Any:
    """An initialiser whose arrays come in flax's box with the names of their axes; `self.param` opens the box."""
    return nn.with_logical_partitioning(initial, names)
