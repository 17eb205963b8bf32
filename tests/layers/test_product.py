"""The product and its gradients against those of jax's own, also as other platforms compute them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers import product as module
from gormley_vision.layers.product import product


@pytest.mark.parametrize(("inner", "outer"), [(3, 7), (7, 3), (5, 5)])
@pytest.mark.parametrize("lead", [(4,), (2, 5), (2, 3, 2)])
def test_values_and_gradients_of_first_and_second_order(inner, outer, lead):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(*lead, inner)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(inner, outer)), jnp.float32)

    def loss(multiply, x, kernel):
        return jnp.sum(jnp.sin(multiply(x, kernel)) ** 2)

    def twice(multiply, x, kernel):  # the gradient of a gradient's norm, as in gradient penalties
        return jnp.sum(jax.grad(loss, argnums=1)(multiply, x, kernel) ** 2)

    np.testing.assert_array_equal(product(x, kernel), x @ kernel)
    for function in (loss, twice):
        found, expected = (
            jax.jit(jax.grad(function, argnums=(1, 2)), static_argnums=0)(multiply, x, kernel)
            for multiply in (product, jnp.matmul)
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    gradient = jnp.asarray(rng.normal(size=(*lead, outer)), jnp.float32)
    ours, others = (f(x, gradient) for f in (module._narrower_transposed, module._gradient_transposed))
    np.testing.assert_allclose(ours, others, rtol=1e-5, atol=1e-6)


def test_types_are_kept():
    x, kernel = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((4, 5), jnp.bfloat16)
    pulled = jax.grad(lambda *a: jnp.sum(product(*a).astype(jnp.float32)), argnums=(0, 1))(x, kernel)
    assert [(g.shape, g.dtype) for g in pulled] == [((2, 3, 4), "bfloat16"), ((4, 5), "bfloat16")]
