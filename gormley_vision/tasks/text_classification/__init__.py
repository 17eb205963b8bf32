"""Classification of texts at [CLS]: `fields` has the config keys, `build` makes the task, `task` trains it."""

from typing import Any

from gormley_vision.tasks.text_classification.fields import (
    EVALUATION,
    FIELDS,
    check,
    described,
    evaluated,
    needs,
    smoke,
)
from gormley_vision.tasks.transformers import TENSOR_KEYS

__all__ = ["EVALUATION", "FIELDS", "TENSOR_KEYS", "check", "described", "evaluated", "make", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """Make the task; see `build.make_text_classification`."""
    from gormley_vision.tasks.text_classification.build import make_text_classification  # imports jax

    return make_text_classification(config, data)
