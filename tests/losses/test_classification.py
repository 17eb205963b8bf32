import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.losses.classification import softmax_cross_entropy


def test_hand_worked_value():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    loss = softmax_cross_entropy(logits, jnp.array([0, 2]))
    np.testing.assert_allclose(loss, -(np.log(0.7) + np.log(0.5)) / 2, rtol=1e-6)


def test_mismatched_labels_are_refused():
    with pytest.raises(ValueError, match="do not match"):
        softmax_cross_entropy(jnp.zeros((4, 3)), jnp.zeros((4, 1), jnp.int32))
