"""A sum tells whether arrays are finite, of every dtype that a state has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.finiteness import all_finite, finite


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("place", [(0, 0), (7, 2999)])
@pytest.mark.parametrize("values", [(np.nan,), (np.inf,), (-np.inf,), (np.inf, -np.inf)])
def test_one_bad_element_is_found_wherever_it_is(dtype, place, values):
    x = jax.random.normal(jax.random.key(0), (8, 3000)).astype(dtype)
    assert jax.jit(all_finite)(x)
    for row, value in enumerate(values):
        x = x.at[(place[0] + row) % 8, place[1]].set(value)
    assert not jax.jit(all_finite)(x)


def test_large_numbers_integers_and_empty_arrays_are_finite():
    for x in (jnp.full(10000, 1e30), jnp.full(100, 6e4, jnp.float16), jnp.full(9, 2**31 - 1), jnp.zeros((0, 3))):
        assert jax.jit(all_finite)(x)


def test_checks_are_named_by_path():
    found = finite("net/gradient", {"a": {"b": jnp.ones(2)}, "c": jnp.array([1, jnp.nan])})
    assert {name: bool(value) for name, value in found.items()} == {"net/gradient/a/b": True, "net/gradient/c": False}
