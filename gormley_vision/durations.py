"""Durations: 'N steps', 'N epochs' or 'N images', so that a batch size can change without retuning.

'examples' is another word for 'images', of data that have none.
"""

import re

from gormley_vision.errors import UserError

_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(k|M)?\s*(steps?|epochs?|images?|examples?)\s*", re.IGNORECASE)
MOST_STEPS = 2**31 - 1  # a state counts its steps as int32
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6}


def is_duration(text: str) -> bool:
    """Return whether the text is a duration."""
    return _PATTERN.fullmatch(text) is not None


def is_zero(text: str) -> bool:
    """Return whether the text is a duration of 0."""
    match = _PATTERN.fullmatch(text)
    return match is not None and float(match[1]) == 0


def to_images(duration: str, *, epoch_images: int, step_images: int) -> float:
    """Convert a duration to images, given the images in an epoch and in a step.

    Raises:
        UserError: the text is not a duration.
    """
    match = _PATTERN.fullmatch(duration)
    if match is None:
        raise UserError(f"duration {duration!r}: write '50 epochs', '20000 steps' or '5M images'")
    number, scale, unit = match.groups()
    per_unit = {"st": step_images, "ep": epoch_images, "im": 1, "ex": 1}[unit[:2].lower()]
    return float(number) * _SCALE[(scale or "").lower()] * per_unit


def to_steps(duration: str, *, epoch_images: int, step_images: int) -> int:
    """Convert a duration to steps, rounded to the nearest, and at least 1 unless it is zero; '' is 0 (never)."""
    if not duration:
        return 0
    images = to_images(duration, epoch_images=epoch_images, step_images=step_images)
    if images / step_images >= MOST_STEPS:
        raise UserError(f"{duration!r} is {images / step_images:.3g} steps, but a run may have at most {MOST_STEPS:,}")
    return max(1, round(images / step_images)) if images else 0
