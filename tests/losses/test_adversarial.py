"""Hand-worked values, the optimal discriminator, stability, and refusal of broadcasting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.losses.adversarial import (
    OBJECTIVES,
    discriminator_loss,
    non_saturating_generator_loss,
    saturating_generator_loss,
)


def test_hand_worked_values():
    # D(x) = 3/4 and D(G(z)) = 1/4: logits are +-log 3.
    real, fake = jnp.log(jnp.array([3.0])), -jnp.log(jnp.array([3.0]))
    np.testing.assert_allclose(discriminator_loss(real, fake), -2 * np.log(0.75), rtol=1e-6)
    np.testing.assert_allclose(saturating_generator_loss(fake), np.log(0.75), rtol=1e-6)
    np.testing.assert_allclose(non_saturating_generator_loss(fake), -np.log(0.25), rtol=1e-6)
    # At a loss for an answer, D = 1/2 and the value of the game is -log 4 (Goodfellow et al. 2014, theorem 1).
    zero = jnp.zeros(3)
    np.testing.assert_allclose(-discriminator_loss(zero, zero), -np.log(4), rtol=1e-6)


def test_means_are_over_every_logit():
    real = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    fake = jnp.array([[0.0, 1.0], [-1.0, 2.0]])
    d_real, d_fake = (
        1 / (1 + np.exp(-np.asarray(real, np.float64))),
        1 / (1 + np.exp(-np.asarray(fake, np.float64))),
    )
    np.testing.assert_allclose(discriminator_loss(real, fake), -np.mean(np.log(d_real) + np.log(1 - d_fake)), rtol=1e-6)
    np.testing.assert_allclose(saturating_generator_loss(fake), np.mean(np.log(1 - d_fake)), rtol=1e-6)
    np.testing.assert_allclose(non_saturating_generator_loss(fake), -np.mean(np.log(d_fake)), rtol=1e-6)


def test_the_discriminator_loss_is_least_at_the_optimal_discriminator():
    """D* = p / (p + q), where the loss is log 4 - 2 JSD(p, q): theorem 1, on a discrete distribution."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    counts_p, counts_q = (p * 10).round().astype(int), (q * 10).round().astype(int)
    real_ids, fake_ids = np.repeat(np.arange(3), counts_p), np.repeat(np.arange(3), counts_q)

    def loss(logits):
        return discriminator_loss(logits[real_ids], logits[fake_ids])

    best = jnp.log(jnp.asarray(p / q, jnp.float32))
    np.testing.assert_allclose(jax.grad(loss)(best), np.zeros(3), atol=1e-6)
    mean = (p + q) / 2
    jensen_shannon = (np.sum(p * np.log(p / mean)) + np.sum(q * np.log(q / mean))) / 2
    np.testing.assert_allclose(loss(best), np.log(4) - 2 * jensen_shannon, rtol=1e-5)


@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_values_and_gradients_are_exact_at_huge_logits(logit):
    x = jnp.full((4,), logit, jnp.float32)
    np.testing.assert_allclose(discriminator_loss(x, x), 1e4, rtol=1e-6)
    np.testing.assert_allclose(saturating_generator_loss(x), -max(logit, 0), rtol=1e-6)
    np.testing.assert_allclose(non_saturating_generator_loss(x), max(-logit, 0), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(saturating_generator_loss)(x).sum(), -1.0 if logit > 0 else 0.0)
    np.testing.assert_allclose(jax.grad(non_saturating_generator_loss)(x).sum(), 0.0 if logit > 0 else -1.0)


def test_the_generator_losses_descend_the_same_way_and_saturate_as_named():
    confident = jnp.array([-10.0])  # a discriminator sure that the sample is fake
    assert jax.grad(saturating_generator_loss)(confident)[0] < 0
    assert jax.grad(non_saturating_generator_loss)(confident)[0] < 0
    assert abs(jax.grad(saturating_generator_loss)(confident)[0]) < 1e-4
    assert abs(jax.grad(non_saturating_generator_loss)(confident)[0]) > 0.99


def test_logits_of_unequal_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        discriminator_loss(jnp.zeros((4,)), jnp.zeros((4, 1)))
    with pytest.raises(ValueError, match="differ in shape"):
        discriminator_loss(jnp.zeros((4, 2, 2)), jnp.zeros((4, 3, 3)))


def test_half_precision_logits_are_promoted():
    assert discriminator_loss(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, jnp.bfloat16)).dtype == jnp.float32
    np.testing.assert_allclose(non_saturating_generator_loss(jnp.full(3, -300.0, jnp.bfloat16)), 300.0)


# ---------------------------------------------------------------------------------------------------------
# All objectives.

REAL, FAKE = np.array([0.5, -1.0, 2.0]), np.array([1.5, -0.5, -3.0])


def log_sigmoid(x):
    return np.log(1 / (1 + np.exp(-x)))


BY_HAND = {
    "non_saturating": (-np.mean(log_sigmoid(REAL)) - np.mean(log_sigmoid(-FAKE)), -np.mean(log_sigmoid(FAKE))),
    "saturating": (-np.mean(log_sigmoid(REAL)) - np.mean(log_sigmoid(-FAKE)), np.mean(log_sigmoid(-FAKE))),
    "hinge": ((0.5 + 2 + 0) / 3 + (2.5 + 0.5 + 0) / 3, 2 / 3),
    "least_squares": ((0.25 + 4 + 1) / 6 + (2.25 + 0.25 + 9) / 6, (0.25 + 2.25 + 16) / 6),
    "wasserstein": (-2 / 3 - 0.5, 2 / 3),
    "relativistic_paired": (-np.mean(log_sigmoid(REAL - FAKE)), -np.mean(log_sigmoid(FAKE - REAL))),
    "relativistic_average": (
        -np.mean(log_sigmoid(REAL + 2 / 3)) - np.mean(log_sigmoid(0.5 - FAKE)),
        -np.mean(log_sigmoid(FAKE - 0.5)) - np.mean(log_sigmoid(-2 / 3 - REAL)),
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_objective_by_hand_and_in_whatever_dtype(name):
    objective, (discriminator, generator) = OBJECTIVES[name], BY_HAND[name]
    for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.bfloat16, 1e-6)):  # these logits are exact in bfloat16
        real, fake = jnp.asarray(REAL, dtype), jnp.asarray(FAKE, dtype)
        values = objective.discriminator(real, fake), objective.generator(fake, real)
        assert [value.dtype for value in values] == [jnp.float32] * 2
        np.testing.assert_allclose(values, (discriminator, generator), rtol=tolerance)
    with pytest.raises(ValueError, match="differ in shape"):
        objective.discriminator(real[:, None], fake)
    if objective.relativistic:
        with pytest.raises(ValueError, match="differ in shape"):
            objective.generator(fake, None)
    else:
        assert objective.generator(fake, None) == objective.generator(fake, real)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_generator_wants_larger_logits_and_the_discriminator_tells_apart(name):
    """Also which objectives see more than a difference of logits: the relativistic ones and Wasserstein's do not."""
    objective = OBJECTIVES[name]
    real, fake = jnp.asarray(REAL, jnp.float32) * 0.1, jnp.asarray(FAKE, jnp.float32) * 0.1
    assert (jax.grad(objective.generator)(fake, real) < 0).all()
    of_real, of_fake = jax.grad(objective.discriminator, (0, 1))(real, fake)
    assert (of_real < 0).all()
    assert (of_fake > 0).all() or name == "least_squares"
    moved = objective.discriminator(real + 5, fake + 5)
    same = bool(abs(moved - objective.discriminator(real, fake)) < 1e-5)
    assert same == (objective.relativistic or name == "wasserstein")


def test_one_sided_smoothing_moves_the_best_logit_of_real_images_alone():
    """The least loss is at D = 1 - s for an image that is always real, and at 0 for one that is always fake."""
    slope = jax.grad(discriminator_loss, (0, 1))
    at = jnp.log(jnp.array([0.9 / 0.1]))
    of_real, of_fake = slope(at, at, 0.1)
    np.testing.assert_allclose(of_real, 0, atol=1e-7)
    np.testing.assert_allclose(of_fake, 0.9, rtol=1e-6)


def test_wasserstein_reaches_the_distance_over_discriminators_of_slope_one():
    """Two points at distance 3: the best is l(x) = x, and the loss is minus the distance (Kantorovich-Rubinstein)."""
    real, fake = jnp.array([3.0, 4.0]), jnp.array([0.0, 1.0])
    assert float(OBJECTIVES["wasserstein"].discriminator(real, fake)) == -3
