"""Schedules: a number of a recipe as a function of the images seen, as in '0: 2e-4, 10M: 5e-5 cosine'.

Each part is a position and the number there. A word after the number says how it is reached from the one before:
`linear`, `cosine` (half a period), `exponential` (by a constant factor); without a word it holds until there, and then
jumps. A position is in images ('10M'), or a duration ('50 epochs', '20000 steps'), or a share of the run ('25%').
Several schedules are written 'KEY = SCHEDULE; KEY = SCHEDULE'. Loads no jax; tasks/scalars.py computes the numbers.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from gormley_vision import durations
from gormley_vision.errors import UserError
from gormley_vision.fields import Field

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_PART = re.compile(
    rf"\s*(?P<at>[^:]+?)\s*:\s*(?P<value>{_NUMBER})(?P<scale>[kM]?)(?:\s+(?P<how>\w+))?\s*", re.IGNORECASE
)
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6}
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
HOW = ("hold", "linear", "cosine", "exponential")
EXAMPLE = "gan.r1 = 0: 0.05, 20M: 0.005 cosine"


class Point(NamedTuple):
    """The number from a position on, and how it is reached from the point before."""

    at: str
    value: float
    how: str  # of HOW


def parsed(text: str) -> dict[str, tuple[Point, ...]]:
    """Parse 'KEY = SCHEDULE; ...'; {} for ''.

    Raises:
        UserError: the text does not have that form. Names the wrong part.
    """
    found: dict[str, tuple[Point, ...]] = {}
    for line in filter(None, map(str.strip, text.split(";"))):
        key, equals, schedule = (part.strip() for part in line.partition("="))
        if not equals or key in found:
            fault = "is there twice" if key in found else "has no '='"
            raise UserError(f"in the schedule {line!r}, {key!r} {fault}: write '{EXAMPLE}'")
        found[key] = _points(key, schedule)
    return found


def _points(key: str, schedule: str) -> tuple[Point, ...]:
    points = []
    for part in schedule.split(","):
        match = _PART.fullmatch(part)
        if not match or (match["how"] or "hold") not in HOW or not _is_position(match["at"]):
            raise UserError(
                f"the schedule of {key} has {part.strip()!r}: write POSITION: NUMBER, then perhaps "
                f"{', '.join(HOW[1:])}, as in '{EXAMPLE}'; positions are 0, 10M (images), '50 epochs', '20000 steps' "
                "or 25%"
            )
        value = float(match["value"]) * _SCALE[match["scale"].lower()]
        points.append(Point(match["at"], value, match["how"] or "hold"))
    if not durations.is_zero(_as_duration(points[0].at)):
        raise UserError(f"the schedule of {key} starts at {points[0].at!r}: its first position is 0")
    if points[0].how != "hold":
        raise UserError(f"the schedule of {key}: nothing is before its first number: leave out {points[0].how!r}")
    for before, after in pairwise(points):
        if after.how == "exponential" and not before.value * after.value > 0:
            raise UserError(f"the schedule of {key}: exponential from {before.value} to {after.value}: write linear")
    return tuple(points)


def _is_position(text: str) -> bool:
    return bool(_SHARE.fullmatch(text)) or durations.is_duration(_as_duration(text))


def _as_duration(text: str) -> str:
    """Return a duration; a number alone counts images, and a share is not one."""
    return text if re.search(r"[a-z]{3}", text) else f"{text} images"


def check(config: Mapping[str, Any], key: str, fields: Mapping[str, Field], allowed: Iterable[str]) -> None:
    """Refuse schedules, the text of `key`, that are not of `allowed` keys, or leave a key's range.

    Raises:
        UserError: names the wrong part; or a key has a value of its own that differs from its schedule's first.
    """
    allowed = tuple(allowed)
    for scheduled, points in parsed(_value(config, key)).items():
        if scheduled not in allowed:
            near = difflib.get_close_matches(scheduled, allowed, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may change {', '.join(allowed)}"
            raise UserError(f"{key}: no schedule changes {scheduled!r}; {hint}")
        field = fields[scheduled]
        low, high = field.at_least or 0, field.at_most if field.below is None else field.below
        for point in points:
            within = low <= point.value and (
                high is None or point.value < high or (field.below is None and point.value == high)
            )
            if not (within and math.isfinite(point.value)):
                most = f"{'below ' if field.below is not None else ''}{high:g}"
                raise UserError(f"{key}: {scheduled} is {point.value:g} at {point.at}, outside of {low:g} to {most}")
        for other, values in field.when.items():
            chosen = _value(config, other)
            if chosen not in values if values else chosen in ("", "none", 0):
                raise UserError(
                    f"{key} schedules {scheduled}, which nothing reads if {other}={chosen!r}: leave it "
                    f"out, as in --config.{key}=''"
                )
        own = _value(config, scheduled)
        if own not in (field.default, points[0].value):
            raise UserError(
                f"{scheduled}={own!r}, and {key} schedules it from {points[0].value:g}: leave out one of the two, "
                f"as in --config.{key}=''"
            )


def _value(config: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    return config[section][name]


def resolved(
    points: tuple[Point, ...], *, epoch_images: int, step_images: int, run_images: float
) -> tuple[tuple[float, float, str], ...]:
    """Return (images seen, value, how) of each point.

    Raises:
        UserError: the positions do not increase.
    """

    def images(at: str) -> float:
        if share := _SHARE.fullmatch(at):
            return float(share[1]) / 100 * run_images
        return durations.to_images(_as_duration(at), epoch_images=epoch_images, step_images=step_images)

    found = tuple((images(point.at), point.value, point.how) for point in points)
    for ((before, *_), (after, *_)), point in zip(pairwise(found), points[1:], strict=True):
        if after <= before:
            raise UserError(
                f"a schedule's positions increase, and {point.at!r} is at {after:g} images after {before:g}"
            )
    return found
