"""Kernel distance between two sets of features: KID (Binkowski et al. 2018, arXiv:1801.01401, section 4)."""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes 0.4 s to import

BLOCK = 1000  # features of each side in a block


class Estimate(NamedTuple):
    """A mean over blocks, and the half width of its 95 % interval; NaN if there is one block."""

    mean: float
    half_width: float


def squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of [m, D] and [n, D], kernel (x . y / D + 1)^3.

    It is negative about as often as positive where both sides have one distribution: equation 4 of the paper's source,
    Gretton et al. 2012.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    within = [_mean_off_diagonal(_kernel(x, x)) for x in (a, b)]
    return float(sum(within) - 2 * _kernel(a, b).mean())


def kernel_distance(a: np.ndarray, b: np.ndarray, block: int = BLOCK) -> Estimate:
    """Return the mean of `squared_mmd` over disjoint blocks, with Student's interval for it.

    Blocks share no feature, so their estimates are independent, which those of random subsets, as in the authors' code,
    are not. Features must be in random order. What does not fill a block is left out; sets smaller than a block are
    one.

    Raises:
        ValueError: a side with fewer than two features.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the kernel distance needs at least 2 features: {min(len(a), len(b))} given")
    size = min(block, len(a), len(b))
    blocks = min(len(a), len(b)) // size
    found = [squared_mmd(*(x[i * size : (i + 1) * size] for x in (a, b))) for i in range(blocks)]
    if blocks == 1:
        return Estimate(found[0], float("nan"))
    error = np.std(found, ddof=1) / np.sqrt(blocks)
    return Estimate(float(np.mean(found)), float(stdtrit(blocks - 1, 0.975) * error))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_off_diagonal(kernel: np.ndarray) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
