"""What reaches the generator as the discriminator improves: the saturating and the non-saturating loss.

Both are functions of a fake's logit l. Saturating, log(1 - D) = -softplus(l) has the slope -D; non-saturating,
-log D = softplus(-l) has the slope -(1 - D), with D = sigmoid(l). So where D is sure of a fake, D -> 0, the first
vanishes and the second tends to -1; their ratio is exp(l) (Goodfellow et al. 2014, arXiv:1406.2661, section 3).
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import wrightomega

from gormley_vision.losses.adversarial import OBJECTIVES

REAL, FAKE = 0.5, -0.5  # where the two points of `train_slope` lie


def logit_slope(objective: str, logit: jax.Array) -> jax.Array:
    """Return the derivative of the generator's loss with respect to the logit of its one image, a scalar."""
    return jax.grad(lambda logit: OBJECTIVES[objective].generator(logit[None], None))(logit)


def train_slope(steps: int, rate: float) -> jax.Array:
    """Train D(x) = sigmoid(psi x) on a real point at 1/2 and a fake at -1/2, from psi = 0: psi by step [steps + 1].

    Plain gradient descent on the project's discriminator loss.
    """
    loss = OBJECTIVES["saturating"].discriminator

    def descend(psi: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        psi = psi - rate * jax.grad(lambda psi: loss(psi[None] * REAL, psi[None] * FAKE))(psi)
        return psi, psi

    return jnp.concatenate([jnp.zeros(1), jax.lax.scan(descend, jnp.zeros(()), None, steps)[1]])


def slope_in_theory(time: np.ndarray) -> np.ndarray:
    """Return psi of `train_slope` for small steps, at time = steps * rate.

    The loss is 2 softplus(-psi/2), so psi' = sigmoid(-psi/2) = 1 / (1 + u) with u = exp(psi/2). Then
    (1 + u) d psi = dt gives log u + u = 1 + t/2, whose solution u is Wright's omega of 1 + t/2. So D's logit of the
    fake, -psi/2 = -log u, falls without end, but as slowly as -log(t/2).
    """
    return 2 * np.log(wrightomega(1 + np.asarray(time) / 2))


def position_slope(objective: str, psi: jax.Array) -> jax.Array:
    """Return the derivative of the generator's loss with respect to the fake point's position, a scalar.

    In theory -psi sigmoid(-psi/2), saturating, and -psi sigmoid(psi/2), non-saturating: towards the real point.
    """
    loss = OBJECTIVES[objective].generator
    return jax.grad(lambda theta: loss((psi * theta)[None], None))(jnp.asarray(FAKE, psi.dtype))


def softmax_slope(objective: str, generator_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """Return the derivative of the expected generator loss with respect to the logits of q = softmax, [K].

    The discriminator's logits [K] are held. At the optimal ones, log p - log q, it is the derivative of 2 JSD(p, q) for
    the saturating loss, since the maximum over D has no first-order effect. For the non-saturating one it is that of
    KL(q, p) - 2 JSD(p, q) (Arjovsky & Bottou 2017, arXiv:1701.04862, theorem 2.5): -log D = log(q/p) - log(1 - D), and
    sum dq log(q/p) is the derivative of KL(q, p).
    """
    loss = OBJECTIVES[objective].generator
    of_points = jax.vmap(lambda logit: loss(logit[None], None))(logits)
    return jax.grad(lambda g: jnp.sum(jax.nn.softmax(g) * of_points))(generator_logits)
