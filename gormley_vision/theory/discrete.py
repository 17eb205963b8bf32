"""GANs on finite sets, where the optimal discriminator and the distances between distributions are known exactly.

A distribution over K points is given as counts [K] of whole numbers: a batch that holds point k counts[k] times has the
distribution as its mean, so the project's losses, which average over a batch, compute the expectation without sampling
noise. A tabular discriminator is one logit a point, [K].
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import linprog

from gormley_vision.losses.adversarial import OBJECTIVES
from gormley_vision.losses.penalties import gradient_penalty

Array = jax.Array | np.ndarray
WIDTH = 64  # hidden units of the critic network


def batch_of(counts: np.ndarray) -> np.ndarray:
    """Return the batch with each point k counts[k] times: int [sum of counts]."""
    return np.repeat(np.arange(len(counts)), counts)


def optimal_discriminator(p: Array, q: Array) -> Array:
    """Return p/(p+q), [K]: Goodfellow et al. 2014 (arXiv:1406.2661), proposition 1. Every point needs some mass.

    At each point p log D + q log(1 - D) is concave in D, with slope p/D - q/(1-D), which is 0 there alone.
    """
    return p / (p + q)


def jensen_shannon(p: Array, q: Array) -> jax.Array:
    """Return the Jensen-Shannon divergence in nats: half of KL(p, m) + KL(q, m) with m = (p+q)/2. 0 <= JSD <= log 2."""
    m = (p + q) / 2
    return (kullback_leibler(p, m) + kullback_leibler(q, m)) / 2


def kullback_leibler(p: Array, q: Array) -> jax.Array:
    """Return sum p log(p/q) in nats, with 0 log 0 = 0."""
    return jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1) / q), 0))


def best_value(p: Array, q: Array) -> jax.Array:
    """Return max over D of V(D, G), -log 4 + 2 JSD(p, q): theorem 1 of the same paper."""
    return -jnp.log(4.0) + 2 * jensen_shannon(p, q)


def value(logits: jax.Array, real_counts: np.ndarray, fake_counts: np.ndarray) -> jax.Array:
    """Return V(D, G) = E log D(x) + E log(1 - D(G(z))) of a tabular discriminator [K], by the project's loss."""
    loss = OBJECTIVES["saturating"].discriminator
    return -loss(logits[batch_of(real_counts)], logits[batch_of(fake_counts)])


def train_discriminator(real_counts: np.ndarray, fake_counts: np.ndarray, steps: int, rate: float) -> jax.Array:
    """Ascend V from D = 1/2 everywhere, and return the logits after each step: [steps + 1, K].

    Plain gradient ascent on V, which is concave in the logits: its slope at point k is p_k - (p_k + q_k) D_k. It
    converges for rate < 8 / max(p + q), and near the optimum the error in point k shrinks by the factor
    1 - rate p_k q_k / (p_k + q_k) a step.
    """

    def ascend(logits: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        logits = logits + rate * jax.grad(value)(logits, real_counts, fake_counts)
        return logits, logits

    start = jnp.zeros(len(real_counts))
    return jnp.concatenate([start[None], jax.lax.scan(ascend, start, None, steps)[1]])


def transport(p: np.ndarray, q: np.ndarray, distances: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the Wasserstein-1 distance and a best plan [K, K] (mass from i to j), by linear programming.

    The primal of Kantorovich: least sum of plan * distances over plan >= 0 with row sums p and column sums q.
    """
    k = len(p)
    rows, columns = np.kron(np.eye(k), np.ones(k)), np.kron(np.ones(k), np.eye(k))
    found = _solved(distances.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q]))
    return found.fun, found.x.reshape(k, k)


def best_potential(p: np.ndarray, q: np.ndarray, distances: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the Wasserstein-1 distance and a critic that attains it, [K] with f_0 = 0, by linear programming.

    The dual, Kantorovich-Rubinstein (equation 2 of Arjovsky et al. 2017, arXiv:1701.07875): greatest sum of (p - q) f
    over f with f_i - f_j <= distances_ij, which must be a metric.
    """
    i, j = np.nonzero(~np.eye(len(p), dtype=bool))
    slopes = np.eye(len(p))[i] - np.eye(len(p))[j]
    bounds = [(0, 0)] + [(None, None)] * (len(p) - 1)  # f is unique only up to a constant
    found = _solved(q - p, A_ub=slopes, b_ub=distances[i, j], bounds=bounds)
    return -found.fun, found.x


def _solved(costs: np.ndarray, **constraints):
    found = linprog(costs, method="highs", **constraints)
    if not found.success:
        raise ValueError(f"no transport between these: {found.message}")
    return found


def slopes_of(potential: Array, distances: np.ndarray) -> jax.Array:
    """Return |f_i - f_j| / distances_ij, [K, K], with 0 on the diagonal: 1-Lipschitz is all <= 1."""
    safe = distances + np.eye(len(distances))
    return jnp.abs(potential[:, None] - potential[None, :]) / safe


def train_potential(
    real_counts: np.ndarray,
    fake_counts: np.ndarray,
    distances: np.ndarray,
    weight: float | jax.Array,
    steps: int = 4000,
) -> jax.Array:
    """Train a critic of one value a point, [K], with the project's Wasserstein objective and a one-sided penalty.

    The penalty is `weight` times the sum over pairs of max(0, slope - 1)^2, as WGAN-LP's (Petzka et al. 2017,
    arXiv:1709.08894) with differences between the points for gradients, and with a sum. Adam, with a rate that falls to
    0 by a cosine: at a constant rate it circles around the kinks.

    In the optimum, pair (i, j) with f_i > f_j pulls with the force m_ij = 2 weight max(0, slope - 1) / distance, and
    the forces balance p - q at each point: m is a flow that carries p to q. So

        sum (p - q) f = sum m d + sum (m d)^2 / (2 weight)   and   sum m d >= W,

    an excess over W of the order of 1/weight; between two points, W + W^2 / (2 weight) exactly.
    """
    real, fake = batch_of(real_counts), batch_of(fake_counts)

    def loss(potential: jax.Array) -> jax.Array:
        too_steep = jax.nn.relu(slopes_of(potential, distances) - 1)
        objective = OBJECTIVES["wasserstein"].discriminator(potential[real], potential[fake])
        return objective + weight * jnp.sum(jnp.square(too_steep)) / 2  # each pair is in the matrix twice

    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))

    def descend(carry, _: None):
        potential, state = carry
        updates, state = optimizer.update(jax.grad(loss)(potential), state)
        return (optax.apply_updates(potential, updates), state), None

    start = jnp.zeros(len(real_counts))
    return jax.lax.scan(descend, (start, optimizer.init(start)), None, steps)[0][0]


def bounds_of(potential: np.ndarray, p: np.ndarray, q: np.ndarray, distances: np.ndarray) -> tuple[float, float]:
    """Return a lower bound of W, the objective of the critic divided by its greatest slope, and the objective itself.

    The second is an upper bound if the critic is trained as in `train_potential`.
    """
    objective = float(np.sum((p - q) * potential))
    return objective / max(1.0, float(np.max(slopes_of(potential, distances)))), objective


def gradient_penalty_excess(p: np.ndarray, q: np.ndarray, positions: np.ndarray, weight: float) -> float:
    """Return by how much the best critic under WGAN-GP's penalty exceeds W, for points of a line in rising order.

    Let A be the share of real points left of x less that of fakes, |A| the mass that crosses x (W is its integral), and
    r the density of the penalty's points. With slope s the critic's objective is the integral of -A s, the penalty's
    that of weight r (|s| - 1)^2. Each x is by itself: the best slope has the sign of -A and the size
    1 + |A| / (2 weight r), and the objective is W + integral of A^2 / (2 weight r); between two points,
    W + W^2 / (2 weight).

    Where |A| < 2 weight r, a slope of the wrong sign and of size 1 - |A| / (2 weight r) is a local optimum, since on a
    line the slope can turn around only through 0. With all signs wrong the objective is -W plus the same excess.
    """
    apart = np.abs(positions[:, None] - positions[None, :])
    pairs = np.divide(p[:, None] * q[None, :], apart, out=np.zeros_like(apart), where=apart > 0)
    excess = 0.0
    for k, gap in enumerate(np.diff(positions)):
        across = pairs[: k + 1, k + 1 :].sum() + pairs[k + 1 :, : k + 1].sum()
        crossing = (p - q)[: k + 1].sum()
        excess += gap * crossing**2 / (2 * weight * across) if crossing else 0.0
    return float(excess)


@partial(jax.jit, static_argnames="steps")
def train_critic(key: jax.Array, real: jax.Array, fake: jax.Array, weight: float, steps: int) -> jax.Array:
    """Train a small network as WGAN-GP's critic, and return mean f(real) - mean f(fake) before each step, [steps].

    Points [N, C] are images of one pixel with C channels, to the project's objective and its penalty, which looks
    between real i and fake i: the fakes are shuffled at each step, so that every pair has its turn. One hidden layer of
    64 softplus units; Adam with beta_1 = 0 and beta_2 = 0.9 (Gulrajani et al. 2017, arXiv:1704.00028), its rate falling
    from 0.005 to 0 by a cosine.
    """
    init_key, steps_key = jax.random.split(key)
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps), b1=0.0, b2=0.9)
    images = lambda points: points[:, None, None, :]  # noqa: E731

    def losses(weights: dict, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        critic = lambda batch: _network(weights, batch[:, 0, 0, :])  # noqa: E731
        order_key, penalty_key = jax.random.split(key)
        objective = OBJECTIVES["wasserstein"].discriminator(critic(images(real)), critic(images(fake)))
        shuffled = jax.random.permutation(order_key, fake)
        return objective + weight * gradient_penalty(critic, penalty_key, images(real), images(shuffled)), -objective

    def descend(carry, key: jax.Array):
        weights, state = carry
        (_, reached), gradients = jax.value_and_grad(losses, has_aux=True)(weights, key)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(weights, updates), state), reached

    weights = _initial(init_key, real.shape[1])
    return jax.lax.scan(descend, (weights, optimizer.init(weights)), jax.random.split(steps_key, steps))[1]


def _initial(key: jax.Array, channels: int) -> dict[str, jax.Array]:
    inner, bias, outer = jax.random.split(key, 3)
    return {
        "inner": jax.random.normal(inner, (channels, WIDTH)) * 2,
        "bias": jax.random.normal(bias, (1, WIDTH)),
        "outer": jax.random.normal(outer, (WIDTH,)) / WIDTH,
    }


def _network(weights: dict[str, jax.Array], points: jax.Array) -> jax.Array:
    bias = jnp.broadcast_to(weights["bias"], (len(points), WIDTH))
    return jax.nn.softplus(points @ weights["inner"] + bias) @ weights["outer"]
