"""`mesh.rules`: which mesh axis splits which named axes of parameters, as text; without jax, as configs are.

'heads: tensor; mlp: tensor' splits each parameter that has an axis `heads` or `mlp` over the mesh axis `tensor` along
it. A mesh axis is used once in an array: rules are tried in order, so that of two names the first rule's wins.
"""

import re
from typing import NamedTuple

from gormley_vision.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")


class Rule(NamedTuple):
    """Parameters' axes called `name` are split over `mesh_axis`."""

    name: str
    mesh_axis: str


def parse_rules(text: str) -> tuple[Rule, ...]:
    """'heads: tensor; mlp: tensor' -> rules.

    Raises:
        UserError: not of that form, naming the part at fault.
    """
    rules = []
    for part in filter(None, map(str.strip, text.split(";"))):
        found = re.fullmatch(r"([A-Za-z_]\w*)\s*:\s*(\w+)", part)
        if not found:
            raise UserError(
                f"mesh.rules, in {part!r}: write 'NAME: MESH_AXIS; ...', names being those of parameters' axes "
                "(docs/scaling.md), as in --config.mesh.rules='heads: tensor; mlp: tensor'"
            )
        rule = Rule(*found.groups())
        if rule.mesh_axis not in MESH_AXES:
            raise UserError(f"mesh.rules, in {part!r}: {rule.mesh_axis!r} is none of {', '.join(MESH_AXES)}")
        rules.append(rule)
    return tuple(rules)


def are_rules(text: str) -> bool:
    """Whether `parse_rules` takes it. Earlier versions had patterns of parameters' names here."""
    try:
        parse_rules(text)
    except UserError:
        return False
    return True
