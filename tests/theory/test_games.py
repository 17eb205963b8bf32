"""The bilinear game and the Dirac-GAN against closed forms: eigenvalues, rates, and what is conserved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.theory import games

SOFTPLUS = ("saturating", "non_saturating", "relativistic_paired")
POINTS = np.random.default_rng(0).normal(size=(20, 2))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def bilinear(step, alternating, momentum=0.0):
    return games.descent(games.bilinear_game(), step, alternating, momentum)


def radius(update):
    return np.abs(games.spectrum(update)[0])


def distances(path):
    return np.linalg.norm(path, axis=1)


def same(found, expected):
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(np.array(expected, complex)), atol=1e-9)


def test_simultaneous_steps_leave_the_bilinear_game_at_the_rate_of_their_eigenvalues():
    same(games.spectrum(bilinear(0.3, False)), [1 + 0.3j, 1 - 0.3j, 0, 0])
    path = games.path_of(bilinear(0.3, False), (1.0, 0.0), 50)
    np.testing.assert_allclose(path[1], [1, 0.3])  # theta feels psi = 0
    np.testing.assert_allclose(distances(path), np.sqrt(1 + 0.3**2) ** np.arange(51), rtol=1e-9)
    np.testing.assert_allclose(games.rate_of(path), np.log(1 + 0.3**2) / 2, rtol=1e-9)


def test_alternating_steps_stay_on_an_ellipse_below_a_step_of_two():
    for step in (0.1, 1.0, 1.9):
        np.testing.assert_allclose(np.abs(games.spectrum(bilinear(step, True))), [1, 1, 0, 0], atol=1e-9)
        theta, psi = games.path_of(bilinear(step, True), (1.0, 0.3), 200).T
        np.testing.assert_allclose(theta**2 + psi**2 + step * theta * psi, 1.09 + 0.3 * step, rtol=1e-9)
    path = games.path_of(bilinear(0.5, True), (1.0, 0.0), 1)
    np.testing.assert_allclose(path[1], [1 - 0.5 * 0.5, 0.5])  # theta feels the new psi
    # At 2, a double root -1 with one eigenvector: linear growth. Above, x^2 + (h^2 - 2) x + 1 has real roots.
    grown = distances(games.path_of(bilinear(2.0, True), (1.0, 0.0), 2000))
    np.testing.assert_allclose(grown[2000] / grown[1000], 2, rtol=1e-2)
    np.testing.assert_allclose(radius(bilinear(2.5, True)), (4.25 + np.sqrt(4.25**2 - 4)) / 2, rtol=1e-9)


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize("momentum", [-0.5, 0.4])
def test_momentums_eigenvalues_are_the_polynomials_roots(alternating, momentum):
    """Written out for h = 1/2, b: (x^2 - (1+b) x + b)^2 + x^2/4 or x^3/4."""
    b = momentum
    quartic = [1, -2 * (1 + b), (1 + b) ** 2 + 2 * b, -2 * b * (1 + b), b**2]
    quartic[1 if alternating else 2] += 0.25
    np.testing.assert_allclose(games.bilinear_polynomial(0.5, alternating, b), quartic, atol=1e-12)
    same(games.spectrum(bilinear(0.5, alternating, b)), np.roots(quartic))


def test_no_momentum_makes_simultaneous_steps_converge():
    """|(1+b)(1-b) + ih(1+b)| < 1 - b^2 would be needed. And close by, 1 + h^2 (1+b)/(1-b)^3."""
    for momentum in np.linspace(-0.95, 0.95, 9):
        for step in (0.02, 0.2, 1.0):
            assert radius(bilinear(step, False, momentum)) > 1
    for b in (-0.5, 0.0, 0.5):
        squared = radius(bilinear(1e-2, False, b)) ** 2
        np.testing.assert_allclose((squared - 1) / 1e-4, (1 + b) / (1 - b) ** 3, rtol=1e-2)


def test_the_sign_of_momentum_decides_between_alternating_players():
    for b in (-0.7, -0.5, -0.2, 0.2, 0.5):
        squared = radius(bilinear(1e-2, True, b)) ** 2
        np.testing.assert_allclose((squared - 1) / 1e-4, 2 * b / (1 - b) ** 3, rtol=1e-2)
    for step in (0.3, 1.0, 1.8):
        inside = [-1 + step / 2 + 1e-3, (-1 + step / 2) / 2, -1e-3]
        assert max(radius(bilinear(step, True, b)) for b in inside) < 1
        assert min(radius(bilinear(step, True, b)) for b in (-1 + step / 2 - 1e-3, 1e-3)) > 1
    for b in (-0.5, 0.2):
        path = games.path_of(bilinear(0.5, True, b), (1.0, 0.0), 200)
        assert (distances(path)[-1] < 1e-2) == (b < 0)
        np.testing.assert_allclose(games.rate_of(path), np.log(radius(bilinear(0.5, True, b))), rtol=5e-3)


def test_eigenvalues_of_the_dirac_gan_by_hand():
    """c = 0.6: -0.3 +- 0.4i. c = 1.25: -0.25 and -1, which without the square (R3GAN's print) would not be real."""
    turning, overdamped = [-0.3 + 0.4j, -0.3 - 0.4j], [-0.25, -1]
    for options, expected in (
        ({"r2": 0.6}, turning),
        ({"r1": 1.25}, overdamped),
        ({"noise": np.sqrt(1.2)}, turning),
        ({"noise": np.sqrt(1.3), "r1": 0.3, "r2": 0.3}, overdamped),
    ):
        same(games.eigenvalues(games.dirac_game("non_saturating", **options)), expected)
    for objective in ("saturating", "relativistic_paired"):
        both = games.dirac_game(objective, noise=np.sqrt(1.3), r1=0.3, r2=0.3)
        same(games.eigenvalues(both), overdamped)
    for options, expected in (
        ({"noise": 2.0}, [1j, -1j]),  # no curvature, so noise does nothing
        ({"r1": 0.6, "r2": 0.6}, [-0.6 + 0.8j, -0.6 - 0.8j]),
        ({"r1": 2.5}, [-0.5, -2]),
    ):
        same(games.eigenvalues(games.dirac_game("wasserstein", **options)), expected)
    same(games.dirac_eigenvalues_in_theory(0.5, 1.25), [-0.25, -1])
    same(games.dirac_eigenvalues_in_theory(1.0, 1.2), [-0.6 + 0.8j, -0.6 - 0.8j])


@pytest.mark.parametrize(
    ("options", "rate"),
    [({"r1": 0.6}, -0.3), ({"r1": 0.625, "r2": 0.625}, -0.25), ({"noise": np.sqrt(1.2)}, -0.3)],
)
def test_measured_rates_are_the_eigenvalues_real_parts(options, rate):
    path = games.flow_of(games.dirac_game("non_saturating", **options), (1e-2, 0.0), 0.1, 800)
    np.testing.assert_allclose(games.rate_of(path, 0.1), rate, rtol=5e-3)


def test_steps_follow_the_field():
    """Simultaneous steps of size h have the eigenvalues 1 + h times the field's."""
    game = games.dirac_game("non_saturating", r1=0.6)
    same(games.spectrum(games.descent(game, 0.1, False)), [1 - 0.03 + 0.04j, 1 - 0.03 - 0.04j, 0, 0])
    assert radius(games.descent(game, 0.1, True)) < 1
    assert radius(games.descent(games.dirac_game("non_saturating"), 0.1, False)) > 1
    np.testing.assert_allclose(radius(games.descent(games.dirac_game("non_saturating"), 0.1, True)), 1, atol=1e-9)


def test_unregularised_minimax_goes_around_in_circles():
    """d (theta^2 + psi^2) / dt = 2 theta psi s - 2 psi theta s = 0; Wasserstein's is a turn by one radian a unit."""
    path = games.flow_of(games.dirac_game("saturating"), (1.0, 0.5), 0.05, 2000)
    np.testing.assert_allclose(distances(path), np.sqrt(1.25), rtol=1e-6)
    assert path[:, 0].min() < -1  # it does move
    time = 0.05 * np.arange(201)
    path = games.flow_of(games.dirac_game("wasserstein"), (1.0, 0.0), 0.05, 200)
    np.testing.assert_allclose(path, np.stack([np.cos(time), -np.sin(time)], axis=1), atol=1e-6)


def test_unregularised_non_saturating_players_arrive_slowly_and_with_steps_stay_on_a_circle():
    """With t = psi theta: d r^2 / dt = 2 t (s(-t) - s(t)) = -2 t tanh(t/2), near 0 -t^2, on average -r^4/8 a turn.

    So 1/r^2 grows by 1/8 a unit of time, slower than any exponential. A simultaneous step of h adds h^2 r^2 / 4 to r^2,
    that is h r^2 / 4 a unit of time: both are equal at r^2 = 2h, which draws from inside and from outside.
    """
    game = games.dirac_game("non_saturating")
    path = games.flow_of(game, (0.3, 0.0), 0.1, 10000)
    np.testing.assert_allclose(1 / distances(path)[-1] ** 2 - 1 / 0.3**2, 1000 / 8, rtol=5e-3)
    for start in (0.1, 1.0):
        path = games.path_of(games.descent(game, 0.1, False), (start, 0.0), 4000)
        np.testing.assert_allclose(distances(path)[-500:].mean(), np.sqrt(0.2), rtol=5e-3)


def test_the_dirac_gan_cannot_tell_r1_from_r2():
    """The slope of psi x is psi at every x: R1 + R2 is R1 of twice the weight. R3GAN's failure of R1 is elsewhere."""
    for objective in ("non_saturating", "relativistic_paired"):
        here = lambda point, r1, r2, name=objective: games.field(games.dirac_game(name, r1, r2), point)  # noqa: E731
        everywhere = jax.jit(jax.vmap(here, (0, None, None)))
        fields = [everywhere(POINTS, *weights) for weights in ((0.4, 0), (0, 0.4), (0.4, 0.4), (0.8, 0), (0, 0))]
        np.testing.assert_allclose(fields[0], fields[1], atol=1e-12)
        np.testing.assert_allclose(fields[2], fields[3], atol=1e-12)
        np.testing.assert_allclose(fields[4] - fields[0], 0.4 * POINTS * [0, 1], atol=1e-12)


def test_alone_with_one_real_point_the_relativistic_loss_is_the_non_saturating_one():
    for point in POINTS[:5]:
        fields = [games.field(games.dirac_game(name), jnp.asarray(point)) for name in SOFTPLUS]
        np.testing.assert_allclose(fields[1], fields[2], atol=1e-12)
        assert np.abs(fields[0] - fields[1]).max() > 1e-3
        theta, psi = point
        believed = 1 / (1 + np.exp(-theta * psi))
        np.testing.assert_allclose(fields[0], [psi * believed, -theta * believed], atol=1e-12)
        np.testing.assert_allclose(fields[1], [psi * (1 - believed), -theta * believed], atol=1e-12)
