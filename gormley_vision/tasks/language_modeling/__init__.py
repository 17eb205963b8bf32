"""Language modelling: `fields` has its config keys, `build` makes the task, `task` trains, `generation` samples."""

from typing import Any

from gormley_vision.tasks.language_modeling.fields import (
    EVALUATION,
    FIELDS,
    SAMPLING,
    check,
    described,
    evaluated,
    needs,
    smoke,
)
from gormley_vision.tasks.transformers import TENSOR_KEYS

__all__ = [
    "EVALUATION",
    "FIELDS",
    "SAMPLING",
    "TENSOR_KEYS",
    "check",
    "described",
    "evaluated",
    "make",
    "needs",
    "smoke",
]


def make(config: Any, data: Any) -> Any:
    """Make the task; see `build.make_language_modeling`."""
    from gormley_vision.tasks.language_modeling.build import make_language_modeling  # imports jax

    return make_language_modeling(config, data)
