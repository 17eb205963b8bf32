"""Refuses unknown values of config keys with a few choices."""

import difflib
from collections.abc import Iterable

from gormley_vision.errors import UserError


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Check that `value` is one of `choices`.

    Args:
        key: the config key, such as "data.crop".
        value: the user's value.
        choices: the allowed values.

    Raises:
        UserError: it is not. Names the key, the value, the nearest choice, and what to type.
    """
    choices = sorted(choices)
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    example = near[0] if near else choices[0]
    raise UserError(f"{key}={value!r} is not known{hint} Choose one of {', '.join(choices)}: --config.{key}={example}")
