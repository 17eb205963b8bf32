"""Cards: JSON that says how figures of images were measured, and which of them can be compared. Loads no jax."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError
from gormley_vision.files import read_json

Card = Mapping[str, Any]

# What two cards must have in common. A network is what its weights are, whatever its file is called.
LIKE = (
    "is_fid",
    "extractor.sha256",
    "extractor.preparation",
    "real.sha256",
    "real.split",
    "real.count",
    "real.image_size",
    "real.channels",
    "real.crop",
    "real.resize_filter",
    "fake.count",
    "fake.quantisation",
    "fake.options",
)


def read_card(path: Path) -> dict[str, Any]:
    """Read a card.

    Raises:
        UserError: the file is not one; says in what.
    """
    found: Any = read_json(path) if path.is_file() else None
    fault = _fault(found) if path.is_file() else "it is a folder" if path.is_dir() else "there is no such file"
    if fault:
        raise UserError(
            f"{path} is not a card ({fault}): pass what scripts/evaluate.py --extractor=... --out=FILE.json wrote"
        )
    return found


def _fault(found: Any) -> str:
    """Return in what a file's content is no card; '' if it is one."""
    if not isinstance(found, dict):
        return "it is no JSON object"
    for part in ("figures", "extractor", "real", "fake"):
        if not isinstance(found.get(part), dict) or not found[part]:
            return f"it has no {part}"
    if not isinstance(found.get("is_fid"), bool):
        return "it does not say is_fid: true or false"
    for name, value in found["figures"].items():
        if not (value is None or isinstance(value, dict) or is_figure(value)):
            return f"its {name} is {value!r}, which is no number"
    for name, kind in (("config_sha256", str), ("training_seed", int), ("step", int)):
        if name in found["fake"] and not isinstance(found["fake"][name], kind):
            return f"its fake.{name} is {found['fake'][name]!r}"
    return ""


def is_figure(value: Any) -> bool:
    """Return whether a value of a card is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def card_of(workdir: Path, step: int) -> dict[str, Any] | None:
    """Return the card of a run's evaluation by an extractor at a step; None if it has none, as earlier runs."""
    path = workdir / "cards" / f"{step:08d}.json"
    found = read_json(path) if path.is_file() else {}
    return found if "extractor" in found else None


def unlike(a: Card, b: Card) -> list[str]:
    """Return those of LIKE in which two cards differ."""
    return [field for field in LIKE if str(_value(a, field)) != str(_value(b, field))]


def refuse_unlike(cards: Mapping[Path, Card]) -> None:
    """Refuse cards that were not measured alike.

    Raises:
        UserError: names the fields that differ, with their values.
    """
    first = next(iter(cards.values()))
    differing = {field for card in cards.values() for field in unlike(first, card)}
    lines = []
    for field in (field for field in LIKE if field in differing):
        each = (f"{_value(card, field)!r}{_network(card, field)} in {path}" for path, card in cards.items())
        lines.append(f"  {field}: {', '.join(each)}")
    if lines:
        raise UserError("these figures were not measured alike, so they cannot be compared:\n" + "\n".join(lines))


def _value(card: Card, field: str) -> Any:
    part, _, name = field.partition(".")
    return card[part].get(name) if name else card.get(part)


def _network(card: Card, field: str) -> str:
    return f" ({card['extractor'].get('name')})" if field == "extractor.sha256" else ""
