"""The cost of a compiled step on a device, counting each loop's body as often as it runs.

`Compiled.cost_analysis()` counts the body of a loop once, whatever its trip count: for a network scanned over its
layers that is only one layer. Here the costs of a computation's instructions are multiplied by the number of times that
it runs: FLOPs of products, bytes of device memory, collectives, and the compiler's own estimate of cycles.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping

from gormley_vision.planning.hlo import Computation, Instruction, arrays, bytes_of, called_by, elements, parse

# Instructions without a cost of their own: names for values, and loops and calls, whose bodies are visited.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"),
    *("copy-done", "async-start", "async-update", "async-done", "partition-id", "replica-id", "iota"),
}
# Within a fusion these only say where a value is found.
_VIEWS = ("bitcast", "copy", "convert", "reshape", "transpose")
_IN_SLICES = ("dynamic-slice", "dynamic-update-slice")
_NO_ESTIMATE = 2**62  # cycles: the compiler writes about 2**63 where it has no estimate
_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices, and how often a step does it."""

    kind: str
    payload: int  # bytes of its larger side on one device
    group: int  # devices that take part together
    times: float

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends in a step by the ring algorithm (Patarasuk and Yuan 2009), for all-reduce twice."""
        share = {"all-reduce": 2 * (self.group - 1) / self.group, "collective-permute": 1.0}
        return self.times * self.payload * share.get(self.kind, (self.group - 1) / self.group)


@dataclasses.dataclass(frozen=True)
class Operation:
    """Operations of one kind in one place of the program, in all runs of a step."""

    place: str  # modules and primitive, as in 'encoder/mlp/in/dot_general'
    kind: str  # such as 'fusion' or 'copy'
    cycles: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one step on one device."""

    flops: float  # of matrix products and convolutions, in kernels, too
    model_flops: float  # the same without what the backward pass computes again
    kernels: float  # calls of custom kernels, whose cycles the compiler does not estimate
    kernel_flops: float
    hbm_bytes: float  # read and written
    cycles: float  # the compiler's estimate, if it gives one for each operation (TPU), else 0; excludes collectives
    collectives: tuple[Collective, ...]
    unknown_loops: int  # loops of unknown length, counted once
    operations: tuple[Operation, ...]  # by cycles, if the compiler estimates them; the costliest first


# Parts of a jax operation's name that name no module and no primitive.
_WRAPPERS = re.compile(r"(jit|jvp|transpose)\(|(while|body|closed_call|checkpoint|cond)$")


def cost_of(text: str) -> Cost:
    """Return the cost of a program, given `Compiled.as_text()`."""
    computations = parse(text)
    times, fused, unknown = _times(computations)
    flops = again = hbm = kernels = kernel_flops = 0.0
    cycles: dict[tuple[str, str], float] = collections.defaultdict(float)
    estimated = True
    collectives: dict[str, Collective] = {}
    for name, count in times.items():
        computation = computations[name]
        for instruction in computation.instructions.values():
            own = count * _flops(instruction, computation)
            if instruction.opcode == "custom-call" and "tpu_custom_call" in instruction.attributes:
                kernels += count
                stated = re.search(r'"flops":"(\d+)"', instruction.attributes)
                own = count * int(stated[1]) if stated else 0.0
                kernel_flops += own
            flops += own
            again += own if "rematted_computation" in instruction.attributes else 0.0
            kind = instruction.opcode.removesuffix("-start")
            if kind in _COLLECTIVES:
                found = _collective(kind, instruction, computation, count)
                # A collective that overlaps with other work appears once for each of its parts.
                channel = re.search(r"channel_id=(\d+)", instruction.attributes)
                key = channel[1] if channel else f"{name}/{instruction.name}"
                if key not in collectives or collectives[key].times < count:
                    collectives[key] = found
            if name not in fused:
                hbm += count * _hbm_bytes(instruction, computation, computations)
                if estimate := re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes):
                    estimated &= int(estimate[1]) < _NO_ESTIMATE
                    cycles[_place(instruction), instruction.opcode] += count * int(estimate[1])
    operations = tuple(Operation(*key, cycles[key]) for key in sorted(cycles, key=lambda key: -cycles[key]))
    exchanges = tuple(collective for collective in collectives.values() if collective.group > 1)
    total = sum(cycles.values()) if estimated else 0
    return Cost(flops, flops - again, kernels, kernel_flops, hbm, total, exchanges, unknown, operations)


def _place(instruction: Instruction) -> str:
    """Return where an operation comes from, without jax's transformations; '' if the compiler added it."""
    found = re.search(r'op_name="([^"]*)"', instruction.attributes)
    if not found:
        return ""
    backward = "backward: " if "transpose(" in found[1] else ""
    return backward + "/".join(part for part in found[1].split("/") if not _WRAPPERS.match(part))


def _times(computations: Mapping[str, Computation]) -> tuple[dict[str, float], set[str], int]:
    """Count how often each computation runs in a step.

    Also returns which computations are inside one operation (a fusion, a reduction), and how many loops have an unknown
    length and are counted once.
    """
    times: dict[str, float] = {}
    fused: set[str] = set()
    unknown = 0

    def walk(name: str, count: float, inside: bool) -> None:
        nonlocal unknown
        times[name] = times.get(name, 0.0) + count
        if inside:
            fused.add(name)
        for instruction in computations[name].instructions.values():
            for role, called in called_by(instruction):
                loops = 1
                if role in ("body", "condition"):
                    known = _trip_count(instruction, computations[name], computations)
                    loops, unknown = known or 1, unknown + (known is None and role == "body")
                deeper = inside or instruction.opcode not in ("while", "conditional", "call", "async-start")
                walk(called, count * loops, deeper)

    walk(next(c.name for c in computations.values() if c.is_entry), 1.0, False)
    return times, fused, unknown


def _trip_count(loop: Instruction, around: Computation, computations: Mapping[str, Computation]) -> int | None:
    """Return how often a loop runs; None if the text does not show it.

    Uses the compiler's count if there is one, else the counter's start, its step, and the constant of the comparison.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
        return int(known[1])
    called = dict(called_by(loop))
    integers = [i for i in computations[called["condition"]].instructions.values() if i.shape[:5] in ("s32[]", "u32[]")]
    limits = [i for i in integers if i.opcode == "constant"]
    counters = [i for i in integers if i.opcode == "get-tuple-element"]
    body = computations[called["body"]].instructions
    start, end = around.instructions[loop.operands[0]], list(body.values())[-1]
    if len(limits) != 1 or len(counters) != 1 or start.opcode != "tuple" or end.opcode != "tuple":
        return None
    index = int(counters[0].attributes.partition("index=")[2].partition(",")[0])
    first = _constant(around.instructions, start.operands[index])
    added = body[end.operands[index]]
    steps = [_constant(body, name) for name in added.operands] if added.opcode == "add" else []
    step = next((step for step in steps if step), None)
    return None if first is None or step is None else -(-(int(limits[0].literal) - first) // step)


def _constant(instructions: Mapping[str, Instruction], name: str) -> int | None:
    """Return the integer constant of this name; None if it is not one."""
    instruction = instructions[name]
    while instruction.opcode == "copy":
        instruction = instructions[instruction.operands[0]]
    return int(instruction.literal) if instruction.opcode == "constant" else None


def _flops(instruction: Instruction, computation: Computation) -> float:
    """Return two FLOPs for each multiply-add of a product or convolution; 0 for everything else.

    A convolution multiplies only where its window meets pixels: not in the padding, nor between dilated pixels.
    """
    if instruction.opcode not in ("dot", "convolution"):
        return 0.0
    (_, out, _), left, right = (
        next(arrays(shape))
        for shape in (instruction.shape, *(computation.instructions[x].shape for x in instruction.operands[:2]))
    )
    if instruction.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        sides = [int(i) for i in contracted[1].split(",") if i] if contracted else []
        return 2.0 * math.prod(out) * math.prod(left[1][i] for i in sides)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None
    image, kernel, result = labels.groups()
    products = out[result.index("b")] * out[result.index("f")] * right[1][kernel.index("i")]
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    window = _window(instruction.attributes)
    for number in range(len(image) - 2):
        i = str(number)
        side = {key: values[number] for key, values in window.items()}
        products *= _products_of_an_axis(
            left[1][image.index(i)], right[1][kernel.index(i)], out[result.index(i)], **side
        )
    return 2.0 * products / (int(groups[1]) if groups else 1)


def _window(attributes: str) -> dict[str, list[int]]:
    """Parse `window={size=3x3 pad=1_1x1_1 ...}` to {'stride': [1, 1], 'pad': [0, 0], ...}, with defaults."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    words = dict(word.split("=") for word in found[1].split()) if found else {}
    sizes = words.get("size", "")
    rank = len(sizes.split("x")) if sizes else 0
    defaults = {"stride": "1", "pad": "0_0", "lhs_dilate": "1", "rhs_dilate": "1"}
    return {
        key: [int(part.split("_")[0]) for part in words.get(key, "x".join([default] * rank)).split("x") if part]
        for key, default in defaults.items()
    }


def _products_of_an_axis(
    image: int, kernel: int, out: int, *, stride: int, pad: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    """Count the pairs of an output and a tap of the kernel that meet a pixel, along one axis."""
    return sum(
        0 <= (at := o * stride + tap * rhs_dilate - pad) <= (image - 1) * lhs_dilate and at % lhs_dilate == 0
        for o in range(out)
        for tap in range(kernel)
    )


def _hbm_bytes(instruction: Instruction, computation: Computation, computations: Mapping[str, Computation]) -> float:
    """Return the bytes of device memory that one operation reads and writes.

    Of a stack of layers, an operation often takes or replaces one slice in place: only that is counted.
    """
    if instruction.opcode in _FREE:
        return 0.0
    shapes = computation.instructions
    written = [bytes_of(shape, hbm_only=True) for shape in elements(instruction.shape)]
    if instruction.opcode == "copy-start":  # its result names both sides
        return sum(written)
    read = [bytes_of(shapes[name].shape, hbm_only=True) if name in shapes else 0 for name in instruction.operands]
    if called := _fused_in(instruction, computations):
        read = [min(full, _read(called[0], number, computations)) for number, full in enumerate(read)]
        changed = _written(called[0], computations)
        if len(changed) == len(written):
            written = [min(full, part) for full, part in zip(written, changed, strict=True)]
    elif instruction.opcode in _IN_SLICES:
        read[0] = min(read[0], _read_by(instruction, 0, shapes, computations))
        written = [min(written[0], _changed(instruction, shapes))]
    return sum(read) + sum(written)


def _read(computation: Computation, number: int, computations: Mapping[str, Computation]) -> int:
    """Return the bytes that a fusion reads of its parameter with this number: the sum of its uses."""
    instructions = computation.instructions
    parameter = next(i for i in instructions.values() if i.opcode == "parameter" and int(i.literal) == number)
    root = list(instructions.values())[-1]
    total = bytes_of(parameter.shape) if _origin(root.name, instructions, computations) is parameter else 0
    for user in instructions.values():
        if user.operands and _origin(user.name, instructions, computations) is not parameter:  # else a view of it
            uses = [at for at, x in enumerate(user.operands) if _origin(x, instructions, computations) is parameter]
            total += sum(_read_by(user, at, instructions, computations) for at in uses)
    return total


def _origin(name: str, instructions: Mapping[str, Instruction], computations: Mapping[str, Computation]) -> Instruction:
    """Return the instruction of a fusion whose values `name` has: only those that are used are ever moved."""
    instruction = instructions[name]
    if instruction.opcode in _VIEWS:
        return _origin(instruction.operands[0], instructions, computations)
    for called in _fused_in(instruction, computations):
        inner = _origin(list(called.instructions)[-1], called.instructions, computations)
        if inner.opcode == "parameter":
            return _origin(instruction.operands[int(inner.literal)], instructions, computations)
    return instruction


def _fused_in(instruction: Instruction, computations: Mapping[str, Computation]) -> list[Computation]:
    """Return the computation of a fusion; [] for other instructions."""
    return [computations[name] for role, name in called_by(instruction) if role == "calls"]


def _read_by(
    user: Instruction, at: int, instructions: Mapping[str, Instruction], computations: Mapping[str, Computation]
) -> int:
    """Return the bytes that an instruction reads of its operand number `at`."""
    if user.opcode == "dynamic-slice" and at == 0:
        return bytes_of(user.shape)
    if user.opcode == "dynamic-update-slice" and at == 0:
        return 0  # what is not replaced stays in place
    called = _fused_in(user, computations)
    return _read(called[0], at, computations) if called else bytes_of(instructions[user.operands[at]].shape)


def _written(computation: Computation, computations: Mapping[str, Computation]) -> list[int]:
    """Return the bytes that a fusion writes of each array of its result."""
    instructions = computation.instructions

    def changed(name: str) -> list[int]:
        result = _origin(name, instructions, computations)
        if called := _fused_in(result, computations):
            return _written(called[0], computations)
        if result.opcode == "tuple":
            return [sum(changed(element)) for element in result.operands]
        if result.opcode == "dynamic-update-slice":
            replaced = _origin(result.operands[0], instructions, computations).opcode == "parameter"
            return [_changed(result, instructions) if replaced else bytes_of(result.shape)]
        return [bytes_of(instructions[name].shape)]

    return changed(list(instructions)[-1])


def _changed(result: Instruction, instructions: Mapping[str, Instruction]) -> int:
    """Return the bytes that one instruction writes, in place if it replaces a slice."""
    replaced = result.opcode == "dynamic-update-slice"
    return bytes_of(instructions[result.operands[1]].shape if replaced else result.shape)


def _collective(kind: str, instruction: Instruction, computation: Computation, count: float) -> Collective:
    operands = sum(bytes_of(computation.instructions[name].shape) for name in instruction.operands)
    largest = max(operands, bytes_of(instruction.shape) if not instruction.opcode.endswith("-start") else 0)
    if kind == "all-reduce" and computation.name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # on TPUs, a fusion of an all-reduce and a slice of its result
    return Collective(kind, largest, _group(instruction.attributes), count)


def _group(attributes: str) -> int:
    """Return the number of devices in a replica group, in any of XLA's three notations."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(listed[1].split(","))
    if tiled := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(tiled[2])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", attributes):
        sizes = dict(part.split("=") for part in re.findall(r"'[^']+'=\d+", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'[^']+'", named[2]))
    return 2 if "source_target_pairs" in attributes else 1
