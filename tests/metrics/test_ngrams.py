"""Kneser-Ney against a textbook loop over dictionaries in fractions, and the laws of a distribution."""

from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from gormley_vision.metrics.ngrams import BYTES, kneser_ney, nats


def array(text):
    return np.frombuffer(text, np.uint8)


def textbook(train, order):
    """P(w | context) by the definition; contexts are bytes of any length."""
    counts = {order: Counter(train[i : i + order] for i in range(len(train) - order + 1))}
    for n in range(order - 1, 0, -1):
        before = defaultdict(set)
        for gram in counts[n + 1]:
            before[gram[1:]].add(gram[0])
        counts[n] = Counter({gram: len(found) for gram, found in before.items()})
    discounts = {}
    for n, grams in counts.items():
        once, twice = (sum(c == k for c in grams.values()) for k in (1, 2))
        discounts[n] = Fraction(once, once + 2 * twice) if once else Fraction(min(grams.values()), 2)

    def probability(context, byte):
        n = len(context) + 1
        lower = probability(context[1:], byte) if context else Fraction(1, BYTES)
        found = {gram: c for gram, c in counts[n].items() if gram[:-1] == context}
        if not found:
            return lower
        total, discount = sum(found.values()), discounts[n]
        own = max(found.get(context + bytes([byte]), 0) - discount, 0)
        return (own + discount * len(found) * lower) / total

    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_textbook(order):
    rng = np.random.default_rng(order)
    train, test = (bytes(rng.choice(list(b"abcd "), size=n, p=[0.4, 0.3, 0.1, 0.1, 0.1])) for n in (300, 40))
    test += b"zz never"
    expected = textbook(train, order)
    given = nats(kneser_ney(array(train), order), array(test))
    for at, value in enumerate(given, 1):
        context = test[max(0, at - order + 1) : at]
        np.testing.assert_allclose(np.exp(-value), float(expected(context, test[at])), rtol=1e-12)


def test_probabilities_of_all_next_bytes_sum_to_one():
    orders = kneser_ney(array(b"the cat sat on the mat and the rat sat on the cat" * 3), 5)
    for context in (b"the c", b"on th", b"never", b"\x00\x01\x02\x03\x04"):
        ends = [nats(orders, array(context + bytes([byte])))[-1] for byte in range(BYTES)]
        np.testing.assert_allclose(np.exp(-np.array(ends)).sum(), 1, rtol=1e-12)


def test_a_longer_context_helps_where_text_repeats_itself():
    text = array(b"abcabdabcabe" * 200)
    losses = [nats(kneser_ney(text[:2000], n), text[2000:]).mean() for n in (1, 2, 5)]
    assert all(a > 1.3 * b for a, b in pairwise(losses))


@pytest.mark.parametrize(("order", "size"), [(0, 10), (8, 10), (5, 4)])
def test_orders_that_do_not_fit_are_refused(order, size):
    with pytest.raises(ValueError, match="an order is 1 to 7"):
        kneser_ney(np.zeros(size, np.uint8), order)
