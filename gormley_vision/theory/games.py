"""Two players with one parameter each: the bilinear game, and the Dirac-GAN with the project's own losses.

The generator has theta, the discriminator psi. In the Dirac-GAN (Mescheder et al. 2018, arXiv:1801.04406, section 2)
the real data is one point at 0, the generator makes one point at theta, and the discriminator's logit is psi x. Both
games have their equilibrium at (0, 0). `field` is the direction in which both players move, and its Jacobian there
decides whether they arrive: with small steps they do if all eigenvalues have a negative real part.

Written out for the Dirac-GAN, with s the sigmoid, the discriminator descends softplus(psi theta), so that

    theta' =  psi s(psi theta)    saturating,     or   psi s(-psi theta)   non-saturating and relativistic
    psi'   = -theta s(psi theta) - gamma psi      or   theta' = psi, psi' = -theta - gamma psi for Wasserstein's.

(The paper's psi is minus ours: there the discriminator's logit is high for fakes.) Alone with its one real point, which
lies at 0 and whose logit is therefore 0, the relativistic loss is the non-saturating one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from gormley_vision.losses.adversarial import OBJECTIVES
from gormley_vision.losses.penalties import r1 as r1_penalty
from gormley_vision.losses.penalties import r2 as r2_penalty

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # a function of theta and psi, scalars, to a scalar
Update = Callable[[jax.Array], jax.Array]  # of (theta, psi, theta one step ago, psi one step ago), [4], to the next
NODES = 8  # of instance noise


class Game(NamedTuple):
    """What each player descends, as a function of both parameters."""

    generator: Loss
    discriminator: Loss


def bilinear_game() -> Game:
    """Return the game in which theta descends theta psi, and psi ascends it."""
    return Game(lambda theta, psi: theta * psi, lambda theta, psi: -theta * psi)


def dirac_game(objective: str, r1: float | jax.Array = 0.0, r2: float | jax.Array = 0.0, noise: float = 0.0) -> Game:
    """Return the Dirac-GAN under one of `OBJECTIVES`, with penalties of weights r1 and r2 and with instance noise.

    Penalties are the project's functions, of a critic of images of one pixel. Instance noise of standard deviation
    `noise` (Sonderby et al. 2016, arXiv:1610.04490) is added to real and to fake points. Its expectation is a mean over
    pairs of 8 equally likely quantiles of a Gaussian, scaled so that the variance is exact; a mean over a finite set,
    for the losses take means. Only the variance enters the Jacobian at the equilibrium.
    """
    players, key = OBJECTIVES[objective], jax.random.key(0)  # R1 and R2 read no key
    real_noise, fake_noise = _noise_pairs(noise)

    def points(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        real, fake = jnp.asarray(real_noise, theta.dtype), theta + jnp.asarray(fake_noise, theta.dtype)
        return real[:, None, None, None], fake[:, None, None, None]

    def generator(theta: jax.Array, psi: jax.Array) -> jax.Array:
        real, fake = (psi * images[:, 0, 0, 0] for images in points(theta))
        return players.generator(fake, real)

    def discriminator(theta: jax.Array, psi: jax.Array) -> jax.Array:
        critic = lambda images: psi * images[:, 0, 0, 0]  # noqa: E731
        real, fake = points(theta)
        penalty = r1 * r1_penalty(critic, key, real, fake) + r2 * r2_penalty(critic, key, real, fake)
        return players.discriminator(critic(real), critic(fake)) + penalty

    return Game(generator, discriminator)


def _noise_pairs(deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Return noise of the real and of the fake point, [n] each; without noise one pair of zeros."""
    if deviation == 0:
        return np.zeros(1), np.zeros(1)
    nodes = ndtri((np.arange(NODES) + 0.5) / NODES)
    nodes *= deviation / nodes.std()
    return np.repeat(nodes, NODES), np.tile(nodes, NODES)


def field(game: Game, point: jax.Array) -> jax.Array:
    """Return (-d generator's loss / d theta, -d discriminator's loss / d psi) at a point [2]."""
    theta, psi = point
    return -jnp.stack([jax.grad(game.generator, 0)(theta, psi), jax.grad(game.discriminator, 1)(theta, psi)])


def eigenvalues(game: Game) -> np.ndarray:
    """Return the eigenvalues of the field's Jacobian at (0, 0), complex [2]."""
    jacobian = jax.jacfwd(lambda point: field(game, point))(jnp.zeros(2))
    return np.linalg.eigvals(np.asarray(jacobian, np.float64))


def dirac_eigenvalues_in_theory(slope: float, damping: float) -> np.ndarray:
    """Return -c/2 +- sqrt(c^2/4 - a^2), complex [2], for slope a and damping c.

    The Jacobian at (0, 0) is [[0, a], [-a, -c]]: eigenvalue^2 + c eigenvalue + a^2 = 0. With f(t) = -log(1 + exp(-t))
    of the paper, a = f'(0) = 1/2 for all objectives with a softplus; for Wasserstein's f(t) = t, a = 1. Without
    regularisation c = 0, and both are imaginary. R1 and R2 add gamma psi^2 / 2 each, whatever theta is, because the
    slope of psi x is psi everywhere: c = gamma_1 + gamma_2. Instance noise of variance v makes the discriminator's loss
    curved in psi by 2 v |f''(0)| = v/2: c = v/2 (for Wasserstein's f'' = 0: none). Decay is fastest at c = 2a.

    R3GAN's equation 12 (arXiv:2501.05441, lemma B.4) prints f'(0) without the square under the root.
    """
    root = np.sqrt(complex(damping**2 / 4 - slope**2))
    return np.array([-damping / 2 + root, -damping / 2 - root])


def descent(game: Game, step: float, alternating: bool, momentum: float = 0.0) -> Update:
    """Return one step of gradient descent with heavy-ball momentum of both players.

    Simultaneous: both gradients are taken at the same point. Alternating: first the discriminator moves, then the
    generator against the new discriminator, as in Algorithm 1 of arXiv:1406.2661. Each then adds momentum times its
    last change (Gidel et al. 2019, arXiv:1807.04740; their theta moves first, which changes no eigenvalue).
    """

    def update(state: jax.Array) -> jax.Array:
        theta, psi, theta_before, psi_before = state
        slope = jax.grad(game.discriminator, 1)(theta, psi)
        psi_after = psi - step * slope + momentum * (psi - psi_before)
        slope = jax.grad(game.generator, 0)(theta, psi_after if alternating else psi)
        theta_after = theta - step * slope + momentum * (theta - theta_before)
        return jnp.stack([theta_after, psi_after, theta, psi])

    return update


def spectrum(update: Update) -> np.ndarray:
    """Return the eigenvalues of one step's Jacobian at 0, complex [4], largest first. Two are 0 without momentum."""
    found = np.linalg.eigvals(np.asarray(jax.jacfwd(update)(jnp.zeros(4)), np.float64))
    return found[np.argsort(-np.abs(found))]


def bilinear_polynomial(step: float, alternating: bool, momentum: float) -> np.ndarray:
    """Return the coefficients, highest first, of the polynomial whose roots are the eigenvalues of the bilinear game.

    (x-1)^2 (x-b)^2 + h^2 x^2 simultaneous, and with h^2 x^3 alternating, for step h and momentum b. With a player's
    parameters growing as x^t, it moves as (x-1)(x-b)/x = h times the other's: as it was, or x times that if it is new.
    Facts that follow, and are tested:

    - simultaneous, b = 0: 1 +- ih, of modulus sqrt(1 + h^2): it spirals out at any step;
    - simultaneous, any b: theta + i psi obeys x^2 - (1 + b + ih) x + b = 0. By Schur's criterion both roots are inside
      the unit circle if |b| < 1 and |(1+b)(1-b) + ih(1+b)| < 1 - b^2, that is sqrt((1-b)^2 + h^2) < 1 - b: never;
    - alternating, b = 0: x^2 - (2 - h^2) x + 1 = 0, of modulus exactly 1 for h^2 <= 4 (at 4 a double root -1, and the
      distance grows linearly): it goes around on the ellipse theta^2 + psi^2 + h theta psi = const;
    - alternating, small h: largest modulus^2 = 1 + 2 b h^2 / (1 - b)^3 + O(h^4): negative momentum converges, positive
      diverges, and momentum's sign decides. A root leaves through -1 at 4 (1+b)^2 = h^2, so that it converges for
      -1 + h/2 < b < 0 (within that, as computed on a grid).
    """
    both = np.polymul(np.poly([1, 1]), np.poly([momentum, momentum]))
    return np.polyadd(both, step**2 * np.eye(5)[1 if alternating else 2])


def path_of(update: Update, start: tuple[float, float], steps: int) -> jax.Array:
    """Return (theta, psi) from `start`, without a change before it, through each step: [steps + 1, 2]."""
    first = jnp.asarray([*start, *start], jnp.result_type(float))
    return _collected(update, first, steps)[:, :2]


def flow_of(game: Game, start: tuple[float | jax.Array, float], step: float, steps: int) -> jax.Array:
    """Return the same for infinitely small steps, by the Runge-Kutta method of order 4: [steps + 1, 2]."""

    def advance(point: jax.Array) -> jax.Array:
        first = field(game, point)
        second = field(game, point + step / 2 * first)
        third = field(game, point + step / 2 * second)
        return point + step / 6 * (first + 2 * second + 2 * third + field(game, point + step * third))

    return _collected(advance, jnp.stack([jnp.asarray(x, jnp.result_type(float)) for x in start]), steps)


def _collected(advance: Update, start: jax.Array, steps: int) -> jax.Array:
    def one(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return (after := advance(state)), after

    later = jax.jit(lambda state: jax.lax.scan(one, state, None, steps)[1])(start)
    return jnp.concatenate([start[None], later])


def rate_of(path: jax.Array | np.ndarray, step: float = 1.0) -> float:
    """Return the slope of the logarithm of the distance to (0, 0) per unit of time, over the path's second half.

    Where the path turns around, between the first and the last time that theta is 0, so that both ends are at the same
    phase; otherwise a least-squares line, by when the slower of two real eigenvalues is left.
    """
    late = np.asarray(path)[len(path) // 2 :]
    theta, distance = late[:, 0], np.log(np.linalg.norm(late, axis=1))
    turns = np.nonzero(theta[1:] * theta[:-1] < 0)[0]
    if len(turns) < 2:
        return float(np.polyfit(step * np.arange(len(distance)), distance, 1)[0])
    ends = turns[[0, -1]]
    ends = ends + theta[ends] / (theta[ends] - theta[ends + 1])  # between two steps
    first, last = np.interp(ends, np.arange(len(distance)), distance)
    return float((last - first) / (ends[1] - ends[0]) / step)
