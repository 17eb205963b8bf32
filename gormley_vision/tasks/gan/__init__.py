"""Generative adversarial networks: `fields` are their keys, `build` makes one of a config, `task` is a step."""

from typing import Any

from gormley_vision.tasks.gan.fields import FIELDS, SAMPLING, TENSOR_KEYS, check, minibatches, needs, smoke

__all__ = ["FIELDS", "SAMPLING", "TENSOR_KEYS", "check", "make", "minibatches", "needs", "smoke"]


def make(config: Any, data: Any) -> Any:
    """The task; see `build.make_gan`."""
    from gormley_vision.tasks.gan.build import make_gan  # jax

    return make_gan(config, data)
