"""Random keys by name and step: nothing random is ever stored, so nothing can be lost or repeated on resume.

A key is `fold_in(fold_in(run_key, name), step)`, and `index` sets apart several draws of one name in a step.
"""

import zlib

import jax


def named_key(run_key: jax.Array, name: str, step: int | jax.Array = 0, index: int | jax.Array = 0) -> jax.Array:
    """The key of stream `name` at `step`; used for one draw."""
    key = jax.random.fold_in(run_key, zlib.crc32(name.encode()))
    return jax.random.fold_in(jax.random.fold_in(key, step), index)


def keyed_normal(key: jax.Array, ids: jax.Array, size: int) -> jax.Array:
    """Standard normal rows [len(ids), size]; row i depends on `key` and `ids[i]` alone, not on its neighbours."""
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (size,)))(ids)
