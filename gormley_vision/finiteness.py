"""Whether arrays are finite: of losses, gradients and the state, checked in each step."""

from typing import Any

import jax
import jax.numpy as jnp


def all_finite(x: jax.Array) -> jax.Array:
    """Return whether all elements of an array are finite (a scalar bool), by their sum, which a NaN or infinity spoils.

    A sum of many numbers beyond 1e30 may overflow as well; a run that has such is lost, too. Sums take less of a CPU's
    step than `jnp.isfinite(x).all()`: pix2pix's (benchmarks/image_to_image_step.py, `pix2pix_1`, 45 million parameters)
    is 0.29 s with them, 0.33 s with that in their place and 0.27 s without checks (two cores of an AMD EPYC).
    """
    return jnp.isfinite(jnp.sum(x, dtype=jnp.float32))


def finite(name: str, tree: Any) -> dict[str, jax.Array]:
    """Return `all_finite` of each array of a tree, under 'name/path'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join([name, *(str(getattr(k, "key", k)) for k in path)]): all_finite(leaf) for path, leaf in leaves}
