"""The mesh, and where a batch, the state and the resident data lie on it.

Three axes. `data` and `fsdp` split a batch by images. `fsdp` also splits the state (ZeRO stage 3, Rajbhandari et al.
2019, arXiv:1910.02054): a parameter is gathered where the step uses it, and no device keeps it whole. `tensor` splits
the matrices inside a layer (Megatron-LM, Shoeybi et al. 2019, arXiv:1909.08053), by rules from the config. XLA's
partitioner puts in the communication: models know nothing of all this.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization, traverse_util
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gormley_vision.errors import UserError, nearest_multiple

AXES = ("data", "fsdp", "tensor")


class Rule(NamedTuple):
    """Arrays whose name `pattern` is found in (`re.search`) have `axes` ('' for none) on their last axes."""

    pattern: str
    axes: tuple[str, ...]


def parse_rules(text: str) -> tuple[Rule, ...]:
    """'attention/qkv: tensor - -; mlp/in: tensor' -> rules.

    Raises:
        UserError: not of that form, naming the part at fault.
    """
    rules = []
    for part in filter(None, map(str.strip, text.split(";"))):
        pattern, colon, axes = part.rpartition(":")
        words = tuple("" if word == "-" else word for word in axes.split())
        problem = "" if colon and words else "write 'PATTERN: AXIS AXIS ...', with - for an axis that is not split"
        problem = problem or next(
            (f"{w!r} is none of {', '.join(AXES)} or -" for w in words if w not in ("", *AXES)), ""
        )
        try:
            re.compile(pattern)
        except re.error as error:
            problem = f"{pattern!r} is no regular expression: {error}"
        if problem:
            raise UserError(f"mesh.rules, in {part!r}: {problem}")
        rules.append(Rule(pattern.strip(), words))
    return tuple(rules)


def make_mesh(
    sizes: Mapping[str, Any], batch_size: int, accumulate: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh of `sizes['data']` x `['fsdp']` x `['tensor']` of the `devices` (all); data=0 takes what the others leave.

    `batch_size` images are computed in `accumulate` pieces, and each piece divides over the devices.

    Raises:
        UserError: too few devices, or a batch that does not divide over them; with the nearest that would.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp, tensor = (sizes[axis] for axis in AXES)
    if not data:
        data = len(devices) // (fsdp * tensor)
        if data * fsdp * tensor != len(devices):
            raise UserError(
                f"{len(devices)} devices do not divide into mesh.fsdp={fsdp} x mesh.tensor={tensor}: "
                + (f"pass --config.mesh.data={data} to use {data * fsdp * tensor} of them" if data else "pass less")
            )
    count = data * fsdp * tensor
    if count > len(devices):
        raise UserError(
            f"mesh.data={data} x mesh.fsdp={fsdp} x mesh.tensor={tensor} is {count} devices, but there are "
            f"{len(devices)} devices; pass --config.mesh.data=0 for what the others leave"
        )
    if batch_size % (accumulate * data * fsdp):
        pieces = f", in {accumulate} pieces," if accumulate > 1 else ""
        near = nearest_multiple(batch_size, accumulate * data * fsdp)
        raise UserError(
            f"data.batch_size={batch_size}{pieces} does not divide over {data * fsdp} devices (mesh.data x mesh.fsdp); "
            f"the nearest that does is --config.data.batch_size={near}"
        )
    if jax.process_count() > 1 and count != len(devices):
        raise UserError(
            f"{jax.process_count()} processes have {len(devices)} devices, and the mesh {count}: every process must "
            "take part; pass --config.mesh.data=0"
        )
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=types, devices=devices[:count])


def describe_mesh(mesh: Mesh) -> str:
    """'1 device', or '8 devices (data 4, fsdp 2)'."""
    split = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    return f"{mesh.size} devices ({split})" if split else "1 device"


@dataclasses.dataclass(frozen=True)
class Shardings:
    """`replicated` for resident data and results; `batch` for [k, m, ...] and `examples` for [m, ...], split along m.

    `of` and `tree` say where the state lies.
    """

    mesh: Mesh
    rules: tuple[Rule, ...]

    @property
    def replicated(self) -> NamedSharding:
        """The whole on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """Of k minibatches [k, m, ...]."""
        return NamedSharding(self.mesh, PartitionSpec(None, ("data", "fsdp")))

    @property
    def examples(self) -> NamedSharding:
        """Of one minibatch [m, ...]."""
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp")))

    def on_mesh(self, function: Callable) -> Callable:
        """`function`, with the mesh set while jax traces it, so that layers can say where activations lie."""

        def traced(*arguments: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):  # for layers/partition.py
                return function(*arguments)

        return traced

    def columns(self, batch_size: int) -> np.ndarray:
        """Which of a minibatch's m examples this process' devices hold, ascending; others may hold the same."""
        slices = self.examples.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[part] for part in slices if part is not None]))

    def of(self, name: str, shape: tuple[int, ...]) -> NamedSharding:
        """Of an array of the state: the first rule that fits its name; then `fsdp` on its largest axis that divides.

        An optimizer's moments and an average are named and shaped like their parameter, and so lie as it does.

        Raises:
            UserError: an axis that a rule splits is not there, or does not divide.
        """
        spec = [""] * len(shape)
        rule = next((rule for rule in self.rules if re.search(rule.pattern, name)), None)
        if rule and len(rule.axes) > len(shape):
            raise UserError(f"mesh.rules: {rule.pattern!r} names {len(rule.axes)} axes, and {name} is {list(shape)}")
        if rule:
            spec[len(shape) - len(rule.axes) :] = rule.axes
        for i, axis in enumerate(spec):
            parts = self.mesh.shape[axis] if axis else 1
            if shape[i] % parts:
                raise UserError(
                    f"{name} {list(shape)}: axis {i}, of {shape[i]}, does not divide over mesh.{axis}={parts}; the "
                    f"nearest that does is {nearest_multiple(shape[i], parts)}"
                )
        parts = self.mesh.shape["fsdp"]
        free = [i for i, axis in enumerate(spec) if not axis and shape[i] and shape[i] % parts == 0]
        if parts > 1 and free and "fsdp" not in spec:
            spec[max(free, key=lambda i: shape[i])] = "fsdp"
        return NamedSharding(self.mesh, PartitionSpec(*(axis or None for axis in spec)))

    def tree(self, state: Any) -> Any:
        """`of` for every array of a state, or of its shapes, in the same structure.

        Raises:
            UserError: as `of`; or a tensor axis that no rule uses, so that its devices would repeat each other's work.
        """
        leaves = traverse_util.flatten_dict(serialization.to_state_dict(state), keep_empty_nodes=True, sep="/")
        places = {name: self.of(name, leaf.shape) if hasattr(leaf, "shape") else leaf for name, leaf in leaves.items()}
        used = {axis for place in places.values() if isinstance(place, NamedSharding) for axis in place.spec}
        if self.mesh.shape["tensor"] > 1 and "tensor" not in used:
            raise UserError(
                f"mesh.tensor={self.mesh.shape['tensor']}, but mesh.rules split nothing over it: "
                "pass --config.mesh.tensor=1"
            )
        return serialization.from_state_dict(state, traverse_util.unflatten_dict(places, sep="/"))
