"""Shardings of activations and kernels on the loop's mesh.

XLA's partitioner chooses every sharding that is not constrained, and chose badly in four cases:

- A product of a parameter sharded over `fsdp` with images sharded over the same axis can be computed in two ways:
  gather the parameter (ZeRO stage 3, as intended), or gather the images and sum partial results, which needs memory and
  communication for the entire batch on every device. It chose the second.
- Noise is replicated, and therefore every device computed all fake images.
- If the output of a dense layer that is sharded over `tensor` is reshaped to a feature map, `tensor` splits the map's
  rows. For a convolution of which one side is sharded by image and the other by rows, its kernel gradient is wrong.
- For two convolutions, the first with a kernel sharded over `fsdp` and `tensor`, it computes wrong values.

The last two are bugs of XLA (jax 0.10.2 and 0.12; tests/layers/test_partition.py), so these shardings are constrained.
"""

import jax
from jax.sharding import PartitionSpec

IMAGE_AXES = ("data", "fsdp")  # the mesh axes over which a batch is sharded
TENSOR_AXIS = "tensor"  # the mesh axis over which matrices are sharded


def mesh_platform() -> str:
    """Return what the mesh is made of, 'cpu', 'cuda' or 'tpu', also if it is only planned for; '' if no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.abstract_device.platform if mesh.axis_names and mesh.abstract_device is not None else ""


def split_by_image(x: jax.Array, unsplit: int = 0) -> jax.Array:
    """Shard the first axis of `x` [B, ...] over the mesh axes of a batch; return `x` unchanged if no mesh is set.

    The next `unsplit` axes are not sharded; the partitioner chooses the sharding of the others.
    """
    if not set(IMAGE_AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
        return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1 - unsplit)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(IMAGE_AXES, *[None] * unsplit, *free))


def gathered(kernel: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Gather `kernel` for a product: only the first of `axes` that divides over `tensor` stays sharded."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    if TENSOR_AXIS not in sizes:
        return kernel
    split = next((axis for axis in axes if kernel.shape[axis] % sizes[TENSOR_AXIS] == 0), None)
    spec = [TENSOR_AXIS if axis == split else None for axis in range(kernel.ndim)]
    return jax.lax.with_sharding_constraint(kernel, PartitionSpec(*spec))
