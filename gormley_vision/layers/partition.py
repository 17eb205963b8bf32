"""Where activations lie, when the loop has a mesh.

Parameters that are split over `fsdp`, and images split over the same axis, leave XLA's partitioner a choice at every
product: gather the parameter (ZeRO stage 3, what is meant), or gather the images and sum partial results, which needs
the memory and the links of the whole batch on every device. It took the second, until it was told.
"""

import jax
from jax.sharding import PartitionSpec

IMAGE_AXES = ("data", "fsdp")  # the mesh axes that share a batch


def split_by_image(x: jax.Array) -> jax.Array:
    """`x` [B, ...] with its first axis over the mesh axes of a batch; as it is, where no mesh is set."""
    if not set(IMAGE_AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
        return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(IMAGE_AXES, *free))
