"""Which modes a generator reaches: counts, the divergence of its histogram, and shares near centres."""

import numpy as np


def mode_counts(labels: np.ndarray, modes: int) -> np.ndarray:
    """Return how many of the samples' modes, int [n] in 0 ... modes - 1, are each of them: int [modes]."""
    return np.bincount(labels, minlength=modes)


def reverse_kl(counts: np.ndarray) -> float:
    """Return KL(samples || uniform) in nats of a histogram [modes]: of Stacked MNIST (Che et al. 2016, 1612.02136).

    Its value for n samples of a uniform distribution is not 0 but about (modes - 1) / 2n.
    """
    shares = counts / counts.sum()
    shares = shares[shares > 0]
    return float(np.sum(shares * np.log(shares * len(counts))))


def near_centres(points: np.ndarray, centres: np.ndarray, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each point's nearest centre, int [n], and whether it is within 3 deviations of it, bool [n].

    A mode counts as reached if a point is: Metz et al. 2016 (arXiv:1611.02163) look at pictures, and later papers count
    so (Srivastava et al. 2017, VEEGAN, arXiv:1705.07761, section 4.1).
    """
    distances = np.linalg.norm(points[:, None] - centres[None], axis=-1)
    nearest = distances.argmin(axis=1)
    return nearest, distances.min(axis=1) <= 3 * deviation
