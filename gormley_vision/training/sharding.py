"""The mesh, and where a batch, the state and the resident data lie on it."""

import dataclasses

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gormley_vision.errors import UserError


def make_mesh(data: int, batch_size: int) -> Mesh:
    """A mesh with one axis, `data`, over `data` devices; 0 is all.

    Raises:
        UserError: too few devices, or a minibatch that does not divide over them.
    """
    devices = jax.devices()
    count = data or len(devices)
    if count > len(devices):
        raise UserError(f"mesh.data={count}, but there are {len(devices)} devices; pass --config.mesh.data=0 for all")
    if batch_size % count:
        near = max(1, round(batch_size / count)) * count
        raise UserError(
            f"data.batch_size={batch_size} does not divide over {count} devices; "
            f"the nearest that does is --config.data.batch_size={near}"
        )
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count])


@dataclasses.dataclass(frozen=True)
class Shardings:
    """`replicated` for state and resident data; `batch` for [k, m, ...] and `examples` for [m, ...], split along m."""

    replicated: NamedSharding
    batch: NamedSharding
    examples: NamedSharding

    @classmethod
    def on(cls, mesh: Mesh) -> "Shardings":
        """The shardings of a mesh with a `data` axis."""
        specs = PartitionSpec(), PartitionSpec(None, "data"), PartitionSpec("data")
        return cls(*(NamedSharding(mesh, spec) for spec in specs))
