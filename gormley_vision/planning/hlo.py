"""Parses the text of a compiled program (HLO) into computations and instructions, and computes sizes of shapes."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"(calls|to_apply|body|condition|branch_computations)=(?:\{([^}]*)\}|(%?[\w.\-]+))")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    literal: str  # the text between the parentheses


@dataclasses.dataclass(frozen=True)
class Computation:
    """A named list of instructions; the last is its result."""

    name: str
    is_entry: bool
    instructions: Mapping[str, Instruction]


def parse(text: str) -> dict[str, Computation]:
    """Return the computations of a module, by name."""
    computations: dict[str, Computation] = {}
    instructions: dict[str, Instruction] = {}
    for line in text.splitlines():
        if (header := _HEADER.match(line)) and " = " not in line.split("(")[0]:
            instructions = {}
            computations[header[2]] = Computation(header[2], bool(header[1]), instructions)
        elif match := _INSTRUCTION.match(line):
            instruction = _parse_instruction(match[1], match[2])
            instructions[instruction.name] = instruction
    return computations


def _parse_instruction(name: str, rest: str) -> Instruction:
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    close = _closing(f"({rest}") - 1
    literal, attributes = rest[:close], rest[close + 1 :]
    return Instruction(name, shape, opcode, tuple(_NAME.findall(literal)), attributes, literal)


def _closing(text: str) -> int:
    """Return the index of the parenthesis that closes the first."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.start()
    raise ValueError(f"no closing parenthesis: {text[:80]}")


def called_by(instruction: Instruction) -> Iterator[tuple[str, str]]:
    """Yield (role, name) of each computation that an instruction runs: 'body', 'condition', 'calls', ..."""
    for role, several, one in _CALLED.findall(instruction.attributes):
        for name in (several or one).split(","):
            yield role, name.strip().lstrip("%")


def arrays(shape: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield (dtype, sides, layout) of each array in a shape's text."""
    for dtype, sides, layout in _ARRAY.findall(shape):
        yield dtype, tuple(int(n) for n in sides.split(",") if n), layout


def elements(shape: str) -> list[str]:
    """Return the text of each element of a tuple's shape, or of the only array."""
    return [match[0] for match in _ARRAY.finditer(shape)]


def bytes_of(shape: str, hbm_only: bool = False) -> int:
    """Return the bytes of all arrays in a shape; with `hbm_only`, without those in on-chip memory (layout S(1))."""
    counted = [array for array in arrays(shape) if not (hbm_only and re.search(r"S\([1-9]", array[2]))]
    return sum(math.ceil(math.prod(sides) * _bits(dtype) / 8) for dtype, sides, _ in counted)


def _bits(dtype: str) -> int:
    digits = re.search(r"\d+", dtype)
    return 8 if dtype == "pred" else int(digits[0]) if digits else 0
