"""Style transfer: `gatys` optimises a picture, `feedforward` and `adain` train networks; `fields` has the keys."""

from typing import Any

from gormley_vision.tasks.style_transfer.fields import FIELDS, SAMPLING, check, minibatches, needs, smoke

__all__ = ["FIELDS", "SAMPLING", "check", "make", "minibatches", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """Make the task; see `build.make_style_transfer`."""
    from gormley_vision.tasks.style_transfer.build import make_style_transfer  # imports jax

    return make_style_transfer(config, data)
