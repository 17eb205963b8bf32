"""The numbers of a recipe in a step: constants of its config, or schedules (gormley_vision/schedules.py)."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gormley_vision import durations, schedules
from gormley_vision.fields import Field

Number = float | jax.Array

# From `first` to `last`, by the share of the way in [0, 1].
_BETWEEN = {
    "hold": lambda first, last, share: jnp.where(share < 1, first, last),
    "linear": lambda first, last, share: first + (last - first) * share,
    "cosine": lambda first, last, share: last + (first - last) * (1 + jnp.cos(jnp.pi * share)) / 2,
    "exponential": lambda first, last, share: first * (last / first) ** share,
}


class Schedule(NamedTuple):
    """A number as a function of the images seen; `points` are (images, value, how it is reached), images ascending."""

    points: tuple[tuple[float, float, str], ...]

    def __call__(self, images_seen: jax.Array) -> jax.Array:
        """Return the number, float32, after `images_seen` images."""
        seen = jnp.asarray(images_seen, jnp.float32)
        value = jnp.float32(self.points[0][1])
        for (start, first, _), (end, last, how) in pairwise(self.points):
            share = jnp.clip((seen - start) / (end - start), 0.0, 1.0)
            value = jnp.where(seen >= start, _BETWEEN[how](first, last, share), value)
        return value


def at(scalars: Mapping[str, float | Schedule], images_seen: jax.Array) -> dict[str, Number]:
    """Return each number after `images_seen` images."""
    return {key: value(images_seen) if isinstance(value, Schedule) else value for key, value in scalars.items()}


def scalars_of(
    config: Mapping[str, Any], fields: Mapping[str, Field], keys: Iterable[str], text: str, images: Mapping[str, int]
) -> dict[str, float | Schedule]:
    """Return the numbers under `keys`: constants of the config, or what the schedules in its key `text` say.

    `images` has `epoch_images` and `step_images`, by which durations are converted.
    """

    def value(key: str) -> Any:
        section, _, name = key.rpartition(".")
        return config[section][name]

    run = durations.to_images(config["duration"], **images)
    constants: dict[str, float | Schedule] = {
        key: durations.to_images(value(key), **images) if fields[key].is_duration else value(key) for key in keys
    }
    return constants | {
        key: Schedule(schedules.resolved(points, run_images=run, **images))
        for key, points in schedules.parsed(value(text)).items()
    }
