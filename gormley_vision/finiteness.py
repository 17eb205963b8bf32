"""Whether arrays are finite: of losses, gradients and the state, checked in each step."""

from typing import Any

import jax
import jax.numpy as jnp


def all_finite(x: jax.Array) -> jax.Array:
    """Return whether all elements of an array are finite (a scalar bool), by their sum, which a NaN or infinity spoils.

    A sum of many numbers beyond 1e30 may overflow as well; a run that has such is lost, too. XLA sums several times
    faster on a CPU than it joins bools: pix2pix's step on one pair of 128 pixels, with 45 million parameters, takes
    0.29 s instead of 0.33 with it, and 0.27 without any check (two cores of an AMD EPYC).
    """
    return jnp.isfinite(jnp.sum(x, dtype=jnp.float32))


def finite(name: str, tree: Any) -> dict[str, jax.Array]:
    """Return `all_finite` of each array of a tree, under 'name/path'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join([name, *(str(getattr(k, "key", k)) for k in path)]): all_finite(leaf) for path, leaf in leaves}
