"""GANs on finite sets against closed forms, scipy's distances and cases by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import expit
from scipy.stats import wasserstein_distance

from gormley_vision.theory import discrete, gradients

REAL, FAKE = np.array([1, 2, 6, 9, 12, 6, 3, 1]), np.array([10, 9, 7, 5, 4, 2, 2, 1])
P, Q = REAL / 40, FAKE / 40
RNG = np.random.default_rng(0)
PLANE = RNG.uniform(size=(7, 2))
APART = np.linalg.norm(PLANE[:, None] - PLANE[None], axis=-1)
PLANE_REAL, PLANE_FAKE = np.array([6, 4, 3, 1, 0, 0, 0]), np.array([0, 0, 1, 1, 5, 4, 3])


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def test_divergence_is_scipys():
    np.testing.assert_allclose(discrete.jensen_shannon(P, Q), jensenshannon(P, Q) ** 2, rtol=1e-12)
    np.testing.assert_allclose(discrete.jensen_shannon(P, P), 0, atol=1e-15)
    np.testing.assert_allclose(
        discrete.jensen_shannon(np.array([0.5, 0.5, 0]), np.array([0, 0, 1.0])), np.log(2), rtol=1e-12
    )


def test_trained_discriminator_is_the_optimal_one_and_its_value_the_divergence():
    """D = p/(p+q), by hand at two points; V rises to -log 4 + 2 JSD, the divergence being scipy's."""
    logits = discrete.train_discriminator(REAL, FAKE, steps=400, rate=4.0)
    np.testing.assert_allclose(expit(logits[-1])[[0, 3]], [1 / 11, 9 / 14], rtol=1e-9)
    np.testing.assert_allclose(expit(logits[-1]), discrete.optimal_discriminator(P, Q), rtol=1e-9)
    values = np.array([discrete.value(row, REAL, FAKE) for row in logits[:20]])
    np.testing.assert_allclose(values[0], -np.log(4), rtol=1e-12)  # of D = 1/2
    best = -np.log(4) + 2 * jensenshannon(P, Q) ** 2
    assert np.all(np.diff(values) > 0)
    assert values.max() < best
    np.testing.assert_allclose(discrete.value(logits[-1], REAL, FAKE), best, rtol=1e-12)
    np.testing.assert_allclose(discrete.best_value(P, Q), best, rtol=1e-12)


def test_errors_shrink_by_the_factor_of_the_hessian():
    """At the optimum V's second derivative is -(p+q) D (1-D) = -pq/(p+q) in each point."""
    logits = discrete.train_discriminator(REAL, FAKE, steps=61, rate=4.0)
    errors = np.abs(np.asarray(logits) - np.log(P / Q))[:, 1:7]  # the last point has no error: there p = q
    np.testing.assert_allclose((errors[61] / errors[60]), (1 - 4 * P * Q / (P + Q))[1:7], atol=2e-3)


def test_equal_distributions_leave_the_discriminator_at_one_half():
    logits = discrete.train_discriminator(REAL, REAL, steps=3, rate=4.0)
    np.testing.assert_array_equal(logits, 0)


def test_distance_by_both_programmes_is_scipys_and_the_plan_is_one():
    positions = np.sort(RNG.normal(size=8))
    distances = np.abs(positions[:, None] - positions[None])
    primal, plan = discrete.transport(P, Q, distances)
    dual, potential = discrete.best_potential(P, Q, distances)
    np.testing.assert_allclose([primal, dual], wasserstein_distance(positions, positions, P, Q), rtol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=1), P, atol=1e-12)
    np.testing.assert_allclose(plan.sum(axis=0), Q, atol=1e-12)
    assert np.max(discrete.slopes_of(potential, distances)) < 1 + 1e-9
    moved = (plan > 1e-9) & (distances > 0)  # complementary slackness: the critic falls at slope 1 along the plan
    np.testing.assert_allclose((potential[:, None] - potential[None])[moved], distances[moved], atol=1e-9)


def test_distances_by_hand():
    """All mass by 3-4-5; half of it by 3; and no transport if there is more of one than of the other."""
    apart = np.array([[0.0, 5.0], [5.0, 0.0]])
    for p, q, expected in (([1, 0], [0, 1], 5), ([1, 0], [0.4, 0.6], 3), ([0.3, 0.7], [0.3, 0.7], 0)):
        for program in (discrete.transport, discrete.best_potential):
            np.testing.assert_allclose(program(np.array(p), np.array(q), apart)[0], expected, atol=1e-12)
    with pytest.raises(ValueError, match="no transport"):
        discrete.transport(np.array([1.0, 0]), np.array([0, 2.0]), apart)


def test_trained_potential_brackets_the_exact_distance_and_its_forces_are_a_plan():
    p, q = PLANE_REAL / 14, PLANE_FAKE / 14
    exact, _ = discrete.transport(p, q, APART)
    excess = []
    for weight in (2.0, 20.0):
        potential = np.asarray(discrete.train_potential(PLANE_REAL, PLANE_FAKE, APART, weight, steps=2000))
        lower, upper = discrete.bounds_of(potential, p, q, APART)
        assert lower < exact < upper
        excess.append(upper - exact)
        apart = APART + np.eye(7)
        falls = potential[:, None] - potential[None]
        forces = 2 * weight * np.maximum(falls / apart - 1, 0) / apart
        np.testing.assert_allclose(forces.sum(axis=1) - forces.sum(axis=0), p - q, atol=2e-3)
        flow = np.sum(forces * APART) + np.sum((forces * APART) ** 2) / (2 * weight)
        np.testing.assert_allclose(upper, flow, rtol=1e-4)
    np.testing.assert_allclose(excess[0] / excess[1], 10, rtol=0.1)


def test_trained_potential_of_two_points():
    """The slope s maximises 3 s - w (s - 1)^2: s = 1 + 3/(2w), and the objective is 3 + 9/(2w)."""
    apart = np.array([[0.0, 3.0], [3.0, 0.0]])
    potential = np.asarray(discrete.train_potential(np.array([1, 0]), np.array([0, 1]), apart, weight=5.0, steps=2000))
    np.testing.assert_allclose(potential[0] - potential[1], 3 + 9 / 10, rtol=1e-5)


def test_excess_under_the_gradient_penalty_by_hand():
    """Two points at distance 3; and real at 0, fakes at 1 and 2.

    There all mass crosses (0, 1), where penalty points have density 1/2 * 1 + 1/2 * 1/2 = 3/4, and half of it
    (1, 2), with density 1/4: 2 w times the excess is 1 / (3/4) + (1/4) / (1/4) = 7/3.
    """
    two = discrete.gradient_penalty_excess(np.array([1.0, 0]), np.array([0, 1.0]), np.array([1.0, 4.0]), weight=5.0)
    np.testing.assert_allclose(two, 9 / 10)
    p, q = np.array([1.0, 0, 0]), np.array([0, 0.5, 0.5])
    three = discrete.gradient_penalty_excess(p, q, np.array([0.0, 1, 2]), weight=10.0)
    np.testing.assert_allclose(three, 7 / 3 / 20)


def test_critic_network_finds_the_distance_and_the_excess_and_on_a_line_sometimes_the_wrong_sign():
    """Real at -2 and -1, fakes at 0, 1 and 2. In the plane, every seed; on a line some slopes may never turn around."""
    real, fake = np.array([3, 3, 0, 0, 0]), np.array([0, 0, 1, 2, 3])
    x = np.arange(-2.0, 3.0)
    exact = wasserstein_distance(x, x, real, fake)
    np.testing.assert_allclose(exact, 17 / 6)
    excess = discrete.gradient_penalty_excess(real / 6, fake / 6, x, weight=10.0)
    keys = jax.random.split(jax.random.key(0), 4)

    def reached(points):
        batches = [jnp.asarray(points[discrete.batch_of(counts)], jnp.float32) for counts in (real, fake)]
        with jax.enable_x64(False):
            train = jax.vmap(lambda key: discrete.train_critic(key, *batches, 10.0, 1000))
            return np.asarray(train(keys))[:, -100:].mean(axis=1)

    in_plane = reached(np.stack([x, 0 * x], axis=1))
    np.testing.assert_allclose(in_plane, exact + excess, rtol=0.01)
    on_line = reached(x[:, None])
    assert np.all((on_line > -exact + excess - 0.05) & (on_line < exact + excess + 0.05))
    assert np.any(np.abs(on_line - (exact + excess)) < 0.05)
    assert np.any(np.abs(on_line - (-exact + excess)) < 0.05)


def test_slopes_of_the_generators_losses_are_the_discriminators_beliefs():
    for logit in (-8.0, -1.0, 0.0, 3.0):
        saturating = gradients.logit_slope("saturating", jnp.asarray(logit))
        non_saturating = gradients.logit_slope("non_saturating", jnp.asarray(logit))
        np.testing.assert_allclose([-saturating, -non_saturating], [expit(logit), 1 - expit(logit)], rtol=1e-9)
        np.testing.assert_allclose(saturating / non_saturating, np.exp(logit), rtol=1e-9)


def test_discriminator_of_two_points_grows_as_the_logarithm():
    """psi + 2 exp(psi/2) = t + 2 along small steps; at psi/2 = log u the saturating slope is psi / (1 + u)."""
    path = np.asarray(gradients.train_slope(steps=20000, rate=0.01))
    time = 0.01 * np.arange(20001)
    np.testing.assert_allclose(path + 2 * np.exp(path / 2), time + 2, rtol=2e-3)
    np.testing.assert_allclose(gradients.slope_in_theory(time), path, rtol=3e-3)
    psi = 2 * np.log(49)  # the discriminator gives the fake 1/50
    np.testing.assert_allclose(gradients.position_slope("saturating", jnp.asarray(psi)), -psi / 50, rtol=1e-9)
    np.testing.assert_allclose(gradients.position_slope("non_saturating", jnp.asarray(psi)), -psi * 49 / 50, rtol=1e-9)


def test_generator_against_the_optimal_discriminator_descends_a_divergence():
    """2 JSD saturating, KL(q, p) - 2 JSD not; derivatives with respect to q's logits by differences of scipy's."""
    q_logits = np.log(Q)

    def divergences(q_logits):
        q = np.exp(q_logits) / np.exp(q_logits).sum()
        twice = 2 * jensenshannon(P, q) ** 2
        return np.array([twice, np.sum(q * np.log(q / P)) - twice])

    steps = 1e-5 * np.eye(8)
    expected = np.array([(divergences(q_logits + e) - divergences(q_logits - e)) / 2e-5 for e in steps]).T
    for objective, slope in zip(("saturating", "non_saturating"), expected, strict=True):
        found = gradients.softmax_slope(objective, jnp.asarray(q_logits), jnp.asarray(np.log(P / Q)))
        np.testing.assert_allclose(found, slope, atol=1e-8)
