"""Image classification: `fields` has its config keys, `build` makes the task, `task` has the training step."""

from typing import Any

from gormley_vision.tasks.classification.fields import EVALUATION, FIELDS, TENSOR_KEYS, check, evaluated, needs, smoke

__all__ = ["EVALUATION", "FIELDS", "TENSOR_KEYS", "check", "evaluated", "make", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """Make the task; see `build.make_classification`."""
    from gormley_vision.tasks.classification.build import make_classification  # imports jax

    return make_classification(config, data)
