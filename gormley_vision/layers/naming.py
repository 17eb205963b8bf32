"""How a layer names the axes of a parameter. gormley_vision/axes.py lists the names, and what they are used for."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn


def named(initial: Callable[..., Any], *names: str) -> Any:
    """Wrap an initialiser to return arrays in flax's box with the names of their axes; `self.param` unboxes them."""
    return nn.with_logical_partitioning(initial, names)
