"""Image classification: `fields` are its keys, `build` makes one of a config, `task` is a step."""

from typing import Any

from gormley_vision.tasks.classification.fields import EVALUATION, FIELDS, TENSOR_KEYS, check, evaluated, needs, smoke

__all__ = ["EVALUATION", "FIELDS", "TENSOR_KEYS", "check", "evaluated", "make", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """The task; see `build.make_classification`."""
    from gormley_vision.tasks.classification.build import make_classification  # jax

    return make_classification(config, data)
