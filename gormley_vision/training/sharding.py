"""The mesh, and how a batch, the state and the resident data are sharded over it.

Three axes. `data` and `fsdp` split a batch by images. `fsdp` also splits the state (ZeRO stage 3, Rajbhandari et al.
2019, arXiv:1910.02054): a parameter is gathered where the step uses it, and no device keeps all of it. `tensor` splits
the matrices inside a layer (Megatron-LM, Shoeybi et al. 2019, arXiv:1909.08053), by rules in the config that refer to
the names of parameters' axes (axes.py). XLA's partitioner inserts the communication; models contain none of this.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core.meta import is_axis_metadata
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gormley_vision.axes import NAMES
from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.mesh_rules import MESH_AXES, Rule

# XLA's options on a CPU: the default ones without YNNPACK's convolutions, which take up to 2.4 times as long as others.
# In jax 0.10.2 they run on one core where there are 64 channels; in 0.12 kernels' gradients are mostly slower.
_OF_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}


def make_mesh(
    sizes: Mapping[str, Any], batch_size: int, accumulate: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Make a mesh of data x fsdp x tensor `devices` (default: all); data=0 means all that remain.

    `batch_size` images are computed as `accumulate` microbatches, each of which divides over the devices.

    Raises:
        UserError: too few devices, or a batch that does not divide over them; names the nearest that does.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp, tensor = (sizes[axis] for axis in MESH_AXES)
    if not data:
        data = len(devices) // (fsdp * tensor)
        if data * fsdp * tensor != len(devices):
            raise UserError(
                f"{len(devices)} devices do not divide into mesh.fsdp={fsdp} x mesh.tensor={tensor}: "
                + (
                    f"pass --config.mesh.data={data} to use {data * fsdp * tensor} of them"
                    if data
                    else "pass smaller ones"
                )
            )
    count = data * fsdp * tensor
    if count > len(devices):
        raise UserError(
            f"mesh.data={data} x mesh.fsdp={fsdp} x mesh.tensor={tensor} is {count} devices, but there are "
            f"{len(devices)} devices; pass --config.mesh.data=0 for all that remain"
        )
    if batch_size % (accumulate * data * fsdp):
        parts = f", in {accumulate} microbatches," if accumulate > 1 else ""
        near = nearest_multiple(batch_size, accumulate * data * fsdp)
        raise UserError(
            f"data.batch_size={batch_size}{parts} does not divide over {data * fsdp} devices (mesh.data x mesh.fsdp); "
            f"the nearest that does is --config.data.batch_size={near}"
        )
    if jax.process_count() > 1 and count != len(devices):
        raise UserError(
            f"{jax.process_count()} processes have {len(devices)} devices, and the mesh uses {count}: every process "
            "must take part; pass --config.mesh.data=0"
        )
    types = (AxisType.Auto,) * len(MESH_AXES)
    try:
        return jax.make_mesh((data, fsdp, tensor), MESH_AXES, axis_types=types, devices=devices[:count])
    except NotImplementedError:  # a TPU's slice has axes of its own
        corner = [max(axis) + 1 for axis in zip(*(device.coords for device in devices), strict=True)]
        raise UserError(
            f"mesh.data={data}, mesh.fsdp={fsdp}, mesh.tensor={tensor}: each must be 1 or a product of some sides of "
            f"the slice, {'x'.join(map(str, corner))}"
        ) from None


def describe_mesh(mesh: Mesh) -> str:
    """Return '1 device', or '8 devices (data 4, fsdp 2)'."""
    split = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    return f"{mesh.size} devices ({split})" if split else "1 device"


@dataclasses.dataclass(frozen=True)
class Shardings:
    """`replicated` for resident data and results; `batch` for [k, m, ...] and `examples` for [m, ...], split along m.

    `sharding_of` and `tree` give the shardings of the state.
    """

    mesh: Mesh
    rules: tuple[Rule, ...]

    @property
    def replicated(self) -> NamedSharding:
        """A full copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """The sharding of k minibatches [k, m, ...]."""
        return NamedSharding(self.mesh, PartitionSpec(None, ("data", "fsdp")))

    @property
    def examples(self) -> NamedSharding:
        """The sharding of one minibatch [m, ...]."""
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp")))

    def jit(self, function: Callable, **options: Any) -> Any:
        """Compile `function` for the mesh, which layers see (layers/partition.py); `options` are those of jax.jit."""

        @functools.wraps(function)
        def traced(*arguments: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return function(*arguments)

        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        return jax.jit(traced, compiler_options=_OF_CPU if on_cpu else None, **options)

    def columns(self, batch_size: int) -> np.ndarray:
        """Return which of a minibatch's m examples this process' devices hold, ascending; others may hold the same."""
        slices = self.examples.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[part] for part in slices if part is not None]))

    def sharding_of(self, shape: tuple[int, ...], axes: tuple[str | None, ...] = (), name: str = "") -> NamedSharding:
        """Return the sharding of an array whose axes have these names: the rules, then `fsdp` on the largest free axis.

        Raises:
            UserError: an axis that a rule splits does not divide, or not all axes have a name.
        """
        if axes and len(axes) != len(shape):
            raise UserError(f"{name} {list(shape)}: {len(axes)} axis names ({', '.join(map(str, axes))})")
        spec = [""] * len(shape)
        for rule in self.rules:
            found = next((i for i, axis in enumerate(axes) if axis == rule.name and not spec[i]), None)
            if found is not None and rule.mesh_axis not in spec:
                spec[found] = rule.mesh_axis
        for i, mesh_axis in enumerate(spec):
            parts = self.mesh.shape[mesh_axis] if mesh_axis else 1
            if shape[i] % parts:
                others = "; ".join(f"{rule.name}: {rule.mesh_axis}" for rule in self.rules if rule.name != axes[i])
                raise UserError(
                    f"{name} {list(shape)}: {axes[i]}, of {shape[i]}, does not divide over mesh.{mesh_axis}={parts}; "
                    f"the nearest that does is {nearest_multiple(shape[i], parts)}. To leave it whole: "
                    f"--config.mesh.rules='{others}'"
                )
        parts = self.mesh.shape["fsdp"]
        free = [i for i, mesh_axis in enumerate(spec) if not mesh_axis and shape[i] and shape[i] % parts == 0]
        if parts > 1 and free and "fsdp" not in spec:
            spec[max(free, key=lambda i: shape[i])] = "fsdp"
        return NamedSharding(self.mesh, PartitionSpec(*(mesh_axis or None for mesh_axis in spec)))

    def tree(self, state: Any) -> Any:
        """Return `sharding_of` every array of an abstract state with flax's boxes, in the structure without boxes.

        An optimizer's moments and an average have boxes like their parameter's, so they are sharded like it.

        Raises:
            UserError: as in `sharding_of`; a rule for a name that no axis has; or a tensor axis that no rule uses, so
                that its devices would repeat each other's work.
        """
        names: set[str | None] = set()

        def shardings(path: Any, leaf: Any) -> Any:
            axes = leaf.names if isinstance(leaf, nn.Partitioned) else ()
            names.update(axes)
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            # An optimizer's box may be empty, hence the inner map.
            return jax.tree.map(lambda x: self.sharding_of(x.shape, axes, name), nn.unbox(leaf))

        tree = jax.tree_util.tree_map_with_path(shardings, state, is_leaf=is_axis_metadata)
        if unknown := next((rule.name for rule in self.rules if rule.name not in names | NAMES.keys()), None):
            existing = ", ".join(sorted(filter(None, names))) or "none"
            raise UserError(f"mesh.rules: no parameter has an axis {unknown!r}; the names of their axes: {existing}")
        used = {mesh_axis for sharding in jax.tree.leaves(tree) for mesh_axis in sharding.spec}
        if self.mesh.shape["tensor"] > 1 and "tensor" not in used:
            raise UserError(
                f"mesh.tensor={self.mesh.shape['tensor']}, but mesh.rules shard nothing over it: "
                "pass --config.mesh.tensor=1"
            )
        return tree
