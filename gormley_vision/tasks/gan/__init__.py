"""Generative adversarial networks: `fields` has the config keys, `build` makes the task, `task` has the step."""

from typing import Any

from gormley_vision.tasks.gan.fields import FIELDS, SAMPLING, TENSOR_KEYS, check, described, minibatches, needs, smoke

__all__ = ["FIELDS", "SAMPLING", "TENSOR_KEYS", "check", "described", "make", "minibatches", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """Make the task; see `build.make_gan`."""
    from gormley_vision.tasks.gan.build import make_gan  # imports jax

    return make_gan(config, data)
