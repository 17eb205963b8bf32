"""Random keys by name and step: nothing random is ever stored, so nothing can be lost or repeated on resume.

A key is `fold_in(fold_in(run_key, name), step)`, and `index` distinguishes several draws of one name in a step.
"""

import zlib

import jax

from gormley_vision.errors import UserError


def run_key(seed: int) -> jax.Array:
    """Return the key from which all others of a run or of a set of samples are derived.

    Uses every bit of the seed; `jax.random.key` uses only 32, and is what a seed below 2**32 gives.

    Raises:
        UserError: the seed is not in [0, 2**63).
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"seed={seed}: must be at least 0 and below 2^63")
    key = jax.random.key(seed % 2**32)
    return jax.random.fold_in(key, seed >> 32) if seed >> 32 else key


def named_key(run_key: jax.Array, name: str, step: int | jax.Array = 0, index: int | jax.Array = 0) -> jax.Array:
    """Return the key of stream `name` at `step`, for one draw."""
    key = jax.random.fold_in(run_key, zlib.crc32(name.encode()))
    return jax.random.fold_in(jax.random.fold_in(key, step), index)


def keyed_normal(key: jax.Array, ids: jax.Array, size: int) -> jax.Array:
    """Return standard normal rows [len(ids), size]; row i depends only on `key` and `ids[i]`."""
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (size,)))(ids)
