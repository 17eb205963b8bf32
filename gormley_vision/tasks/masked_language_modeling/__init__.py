"""Masked language modelling: `fields` has its config keys, `build` makes the task, `task` has the training step."""

from typing import Any

from gormley_vision.tasks.masked_language_modeling.fields import FIELDS, check, described, needs, smoke
from gormley_vision.tasks.transformers import TENSOR_KEYS

__all__ = ["FIELDS", "TENSOR_KEYS", "check", "described", "make", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """Make the task; see `build.make_masked_language_modeling`."""
    from gormley_vision.tasks.masked_language_modeling.build import make_masked_language_modeling  # imports jax

    return make_masked_language_modeling(config, data)
