"""Baselines of language models: n-gram models of bytes, by counting.

Interpolated Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1998, section 2.7 and equation 4.29 with one
discount for each order, D = n1 / (n1 + 2 n2), where n1 and n2 are how many n-grams occur once and twice):

    P(w | c) = max(N(c w) - D, 0) / N(c .) + D * N1+(c .) / N(c .) * P(w | c without its first byte)

N is the count for the highest order. For lower ones it is the number of different bytes before the n-gram, the point of
the method: "Francisco" is frequent, but only after "San". Below the unigram is the uniform distribution over 256 bytes;
a context that was never seen leaves all to the lower order.
"""

from typing import NamedTuple

import numpy as np

BYTES = 256


class Order(NamedTuple):
    """Counts of the n-grams of one order, as sorted codes (base 256, the last byte last), and of their contexts."""

    grams: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray  # N(c .)
    followers: np.ndarray  # N1+(c .)
    discount: float


def kneser_ney(text: np.ndarray, order: int) -> list[Order]:
    """Count uint8 [T]. Returns orders 1 to `order` (at most 7: codes have 63 bits)."""
    if not 1 <= order <= 7 or len(text) < order:
        raise ValueError(f"order {order} of {len(text)} bytes: an order is 1 to 7, and at most the text's length")
    orders = []
    grams, counts = np.unique(_codes(text, order), return_counts=True)
    for n in range(order, 0, -1):
        orders.append(_order(grams, counts))
        if n > 1:  # the different bytes before each shorter n-gram
            grams, counts = np.unique(grams % BYTES ** (n - 1), return_counts=True)
    return orders[::-1]


def nats(orders: list[Order], text: np.ndarray) -> np.ndarray:
    """Return -log P of bytes 1 to T - 1 of uint8 [T], each given those before it in `text`, float64 [T - 1]."""
    probabilities = np.full(len(text), 1 / BYTES)
    for n, order in enumerate(orders, 1):
        codes = _codes(text, n)  # of the n-grams that end at bytes n - 1, n, ...
        count = _look_up(order.grams, order.counts, codes)
        total = _look_up(order.contexts, order.totals, codes // BYTES)
        followers = _look_up(order.contexts, order.followers, codes // BYTES)
        lower = probabilities[n - 1 :]
        seen = np.maximum(total, 1)
        mixed = (np.maximum(count - order.discount, 0) + order.discount * followers * lower) / seen
        probabilities[n - 1 :] = np.where(total > 0, mixed, lower)
    return -np.log(probabilities[1:])


def _order(grams: np.ndarray, counts: np.ndarray) -> Order:
    contexts, first = np.unique(grams // BYTES, return_index=True)
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    discount = once / (once + 2 * twice) if once else 0.5 * (counts.min() if len(counts) else 0)
    return Order(
        grams, counts, contexts, np.add.reduceat(counts, first), np.diff(first, append=len(grams)), float(discount)
    )


def _codes(text: np.ndarray, n: int) -> np.ndarray:
    """Return the n-grams of a text as integers, int64 [T - n + 1]."""
    codes = np.zeros(max(0, len(text) - n + 1), np.int64)
    for i in range(n):
        codes = codes * BYTES + text[i : len(codes) + i]
    return codes


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the values of the wanted keys, 0 where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
