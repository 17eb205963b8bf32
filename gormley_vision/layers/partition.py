"""Where activations and kernels lie, when the loop has a mesh.

XLA's partitioner chooses for itself where nothing is said, and chose badly four times:

- Parameters that are split over `fsdp`, and images split over the same axis, can meet in a product in two ways: gather
  the parameter (ZeRO stage 3, what is meant), or gather the images and sum partial results, which needs the memory and
  the links of the full batch on every device. It took the second.
- All noise is drawn on every device, so that every device computed all fake images.
- Where a dense layer that is split over `tensor` becomes a map, `tensor` splits the map's rows; and of a convolution
  with one side split by image and the other by rows, it computes a wrong gradient for the kernel.
- Of two convolutions, the first with a kernel split over `fsdp` and `tensor`, it computes wrong values.

The last two are faults of XLA (jax 0.10.2 and 0.12; tests/layers/test_partition.py), so nothing is left to it there.
"""

import jax
from jax.sharding import PartitionSpec

IMAGE_AXES = ("data", "fsdp")  # the mesh axes that share a batch
TENSOR_AXIS = "tensor"  # the one that shares matrices


def split_by_image(x: jax.Array, unsplit: int = 0) -> jax.Array:
    """`x` [B, ...] with its first axis over the mesh axes of a batch; as it is, where no mesh is set.

    The next `unsplit` axes are not split; where the others lie is the partitioner's choice.
    """
    if not set(IMAGE_AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
        return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1 - unsplit)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(IMAGE_AXES, *[None] * unsplit, *free))


def gathered(kernel: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """`kernel` as a product uses it: the first of `axes` that divides over `tensor` is split, and nothing else."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    if TENSOR_AXIS not in sizes:
        return kernel
    split = next((axis for axis in axes if kernel.shape[axis] % sizes[TENSOR_AXIS] == 0), None)
    spec = [TENSOR_AXIS if axis == split else None for axis in range(kernel.ndim)]
    return jax.lax.with_sharding_constraint(kernel, PartitionSpec(*spec))
