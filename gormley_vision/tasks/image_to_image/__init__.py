"""Image to image: `fields` has the config keys, `build` makes the task, `degradations` the inputs, `task` trains."""

from typing import Any

from gormley_vision.tasks.image_to_image.fields import FIELDS, TENSOR_KEYS, check, described, needs, smoke

__all__ = ["FIELDS", "TENSOR_KEYS", "check", "described", "make", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """Make the task; see `build.make_image_to_image`."""
    from gormley_vision.tasks.image_to_image.build import make_image_to_image  # imports jax

    return make_image_to_image(config, data)
