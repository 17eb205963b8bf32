"""Cloze baselines against loops over dictionaries in fractions, and the laws of a distribution."""

from collections import Counter
from fractions import Fraction

import numpy as np

from gormley_vision.metrics.cloze import Cloze

V, END = 4, 4


def textbook(windows):
    """P(w | a _ b) by the definition."""
    triples = []
    for window in windows:
        around = [END, *window, END]
        triples += [(around[i - 1], around[i], around[i + 1]) for i in range(1, len(around) - 1)]
    views = {
        "both": Counter(((a, b), w) for a, w, b in triples),
        "left": Counter((a, w) for a, w, _ in triples),
        "right": Counter((b, w) for _, w, b in triples),
        "one": Counter((0, w) for _, w, _ in triples),
    }

    def discounted(view, context, token, lower):
        counts = views[view]
        once, twice = (sum(c == k for c in counts.values()) for k in (1, 2))
        discount = Fraction(once, once + 2 * twice) if once else Fraction(min(counts.values()), 2)
        found = {w: c for (k, w), c in counts.items() if k == context}
        if not found:
            return lower
        return (max(found.get(token, 0) - discount, 0) + discount * len(found) * lower) / sum(found.values())

    def probability(a, token, b):
        unigram = discounted("one", 0, token, Fraction(1, V))
        beside = (discounted("left", a, token, unigram) + discounted("right", b, token, unigram)) / 2
        return discounted("both", (a, b), token, beside)

    return probability, lambda token: discounted("one", 0, token, Fraction(1, V))


def test_it_is_the_definition():
    rng = np.random.default_rng(0)
    train = [rng.choice(V, size, p=[0.5, 0.3, 0.15, 0.05]) for size in (30, 1, 20)]
    held_out = [rng.integers(0, V, size) for size in (15, 1, 40)]
    probability, unigram = textbook([window.tolist() for window in train])
    places = []
    for window in held_out:
        around = [END, *window.tolist(), END]
        places += [(around[i - 1], around[i], around[i + 1]) for i in range(1, len(around) - 1)]
    each = [[float(probability(a, w, b)) for w in range(V)] for a, _, b in places]
    np.testing.assert_allclose(np.sum(each, axis=1), 1)
    truth = [w for _, w, _ in places]
    found = Cloze(train, V).score(held_out)
    np.testing.assert_allclose(
        found["trigram"]["loss"], -np.mean([np.log(row[w]) for row, w in zip(each, truth, strict=True)])
    )
    np.testing.assert_allclose(found["most frequent"]["loss"], -np.mean([np.log(float(unigram(w))) for w in truth]))
    assert found["trigram"]["accuracy"] == np.mean(np.argmax(each, axis=1) == truth)
    assert found["most frequent"]["accuracy"] == np.mean(np.array(truth) == 0)


def test_by_hand():
    """What always stands between the same two is always right; alone, only one of four is the most frequent."""
    windows = [np.tile([0, 1, 0, 2, 3, 3], 50)]
    found = Cloze(windows, V).score(windows)
    assert found["trigram"]["accuracy"] > 0.99
    assert found["trigram"]["loss"] < 0.1
    assert abs(found["most frequent"]["accuracy"] - 1 / 3) < 1e-9
