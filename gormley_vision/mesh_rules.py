"""Parses `mesh.rules`: which mesh axis splits which named axes of parameters. Loads no jax.

'heads: tensor; mlp: tensor' splits each parameter that has an axis `heads` or `mlp` over the mesh axis `tensor` along
it. Each mesh axis is used once in an array: rules are tried in order, and the first that applies wins.
"""

import re
from typing import NamedTuple

from gormley_vision.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")


class Rule(NamedTuple):
    """A rule: parameters' axes named `name` are split over `mesh_axis`."""

    name: str
    mesh_axis: str


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Parse 'heads: tensor; mlp: tensor'.

    Raises:
        UserError: the text does not have that form. Names the wrong part.
    """
    rules = []
    for part in filter(None, map(str.strip, text.split(";"))):
        found = re.fullmatch(r"([A-Za-z_]\w*)\s*:\s*(\w+)", part)
        if not found:
            raise UserError(
                f"mesh.rules, in {part!r}: write 'NAME: MESH_AXIS; ...' with names of parameters' axes "
                "(docs/scaling.md), as in --config.mesh.rules='heads: tensor; mlp: tensor'"
            )
        rule = Rule(*found.groups())
        if rule.mesh_axis not in MESH_AXES:
            raise UserError(f"mesh.rules, in {part!r}: {rule.mesh_axis!r} is not one of {', '.join(MESH_AXES)}")
        rules.append(rule)
    return tuple(rules)


def are_rules(text: str) -> bool:
    """Return whether `parse_rules` accepts the text. Earlier versions had patterns of parameters' names here."""
    try:
        parse_rules(text)
    except UserError:
        return False
    return True
