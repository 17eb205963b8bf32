"""Masked patches: `fields` has the config keys, `build` makes the task, `network` the nets, `task` trains them."""

from typing import Any

from gormley_vision.tasks.masked_patches.fields import FIELDS, TENSOR_KEYS, check, needs, smoke

__all__ = ["FIELDS", "TENSOR_KEYS", "check", "make", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """Make the task; see `build.make_masked_patches`."""
    from gormley_vision.tasks.masked_patches.build import make_masked_patches  # imports jax

    return make_masked_patches(config, data)
