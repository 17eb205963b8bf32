"""Baselines of masked language models, by counting: a token from the two beside it, and from nothing at all.

    P(w | a _ b) = max(N(a w b) - D, 0) / N(a . b) + D * N1+(a . b) / N(a . b) * (P(w | a) + P(w | b)) / 2

with absolute discounting (Ney, Essen & Kneser 1994): D = n1 / (n1 + 2 n2), where n1 and n2 are how many of the counts
are one and two. P(w | a) and P(w | b) have the same form, and fall back on the unigram, and that on the uniform
distribution. Where a pair of neighbours was never seen, all is left to each of them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_ROWS = 512  # distributions at a time, each float64 [V]


class Counts(NamedTuple):
    """How often each token follows from each context."""

    contexts: np.ndarray  # int64 [C], sorted
    table: Any  # scipy.sparse.csr_array [C, V]
    discount: float


class Cloze:
    """Counts of windows of tokens, each int [T]; beyond a window's ends is a token of its own."""

    def __init__(self, windows: list[np.ndarray], vocabulary: int) -> None:
        tokens, left, right = _neighbours(windows, vocabulary)
        self._vocabulary = vocabulary
        self._both = _count(left * (vocabulary + 1) + right, tokens, vocabulary)
        self._left, self._right = _count(left, tokens, vocabulary), _count(right, tokens, vocabulary)
        self._one = _count(np.zeros_like(tokens), tokens, vocabulary)
        self._most_frequent = int(np.bincount(tokens).argmax())

    def score(self, windows: list[np.ndarray]) -> dict[str, dict[str, float]]:
        """Return 'loss' in nats and 'accuracy' of each token of the windows, by 'most frequent' and by 'trigram'."""
        tokens, *_ = _neighbours(windows, self._vocabulary)
        nats = {"most frequent": 0.0, "trigram": 0.0}
        right = {"most frequent": float((tokens == self._most_frequent).sum()), "trigram": 0.0}
        for wanted, unigram, trigram in self._distributions(windows):
            rows = np.arange(len(wanted))
            nats["most frequent"] -= np.log(unigram[wanted]).sum()
            nats["trigram"] -= np.log(trigram[rows, wanted]).sum()
            right["trigram"] += (trigram.argmax(axis=1) == wanted).sum()
        return {k: {"loss": float(nats[k] / len(tokens)), "accuracy": float(right[k] / len(tokens))} for k in nats}

    def _distributions(self, windows: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield tokens [N], the unigram [V], and P(w | a _ b) [N, V]."""
        tokens, left, right = _neighbours(windows, self._vocabulary)
        uniform = np.full((1, self._vocabulary), 1 / self._vocabulary)
        unigram = _discounted(self._one, np.zeros(1, np.int64), uniform)
        for start in range(0, len(tokens), _ROWS):
            a, b = left[start : start + _ROWS], right[start : start + _ROWS]
            beside = (_discounted(self._left, a, unigram) + _discounted(self._right, b, unigram)) / 2
            both = _discounted(self._both, a * (self._vocabulary + 1) + b, beside)
            yield tokens[start : start + _ROWS], unigram[0], both


def _neighbours(windows: list[np.ndarray], end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all tokens int64 [N], and those before and after each; `end` beyond a window."""
    around = [np.pad(window.astype(np.int64), 1, constant_values=end) for window in windows]
    parts = [[each[1:-1] for each in around], [each[:-2] for each in around], [each[2:] for each in around]]
    tokens, left, right = (np.concatenate(part) for part in parts)
    return tokens, left, right


def _count(contexts: np.ndarray, tokens: np.ndarray, vocabulary: int) -> Counts:
    from scipy.sparse import csr_array  # jax brings scipy

    known, rows = np.unique(contexts, return_inverse=True)
    table = csr_array((np.ones(len(tokens)), (rows, tokens)), shape=(len(known), vocabulary))
    once, twice = (table.data == 1).sum(), (table.data == 2).sum()
    return Counts(known, table, float(once / (once + 2 * twice)) if once else 0.5 * float(table.data.min()))


def _discounted(counts: Counts, contexts: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return P(w | context) [N, V], where `lower` [N or 1, V] has what is taken from seen tokens."""
    at = np.minimum(np.searchsorted(counts.contexts, contexts), len(counts.contexts) - 1)
    found = counts.table[at].toarray() * (counts.contexts[at] == contexts)[:, None]
    total, followers = found.sum(axis=1, keepdims=True), (found > 0).sum(axis=1, keepdims=True)
    mixed = (np.maximum(found - counts.discount, 0) + counts.discount * followers * lower) / np.maximum(total, 1)
    return np.where(total > 0, mixed, lower)
