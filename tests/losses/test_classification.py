"""Hand-worked cross-entropy, hard and soft targets."""

import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.losses.classification import softmax_cross_entropy


def test_hand_worked_values():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    hard = softmax_cross_entropy(logits, jnp.array([[1.0, 0, 0], [0, 0, 1.0]]))
    np.testing.assert_allclose(hard, [-np.log(0.7), -np.log(0.5)], rtol=1e-6)
    soft = softmax_cross_entropy(logits, jnp.array([[0.5, 0.5, 0], [0.25, 0.25, 0.5]]))
    np.testing.assert_allclose(soft, [-(np.log(0.7) + np.log(0.2)) / 2, 1.5 * np.log(2)], rtol=1e-6)


def test_large_logits_of_a_low_precision_stay_finite():
    loss = softmax_cross_entropy(jnp.array([[1e4, -1e4]], jnp.bfloat16), jnp.array([[0.0, 1.0]]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, [2e4], rtol=1e-2)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (3, 2)])
def test_targets_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="do not match"):
        softmax_cross_entropy(jnp.zeros((2, 3)), jnp.zeros(shape))
