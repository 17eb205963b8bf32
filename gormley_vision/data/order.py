"""The order in which examples are visited: a pure function of (seed, length, position).

Examples come in one endless stream of shuffled epochs. Position `p` is in epoch `p // length`, and an
epoch's permutation depends only on (seed, epoch, length), so a resumed run, or one on another number of
hosts, finds the same examples without replaying anything.
"""

from functools import lru_cache

import numpy as np

_WORD = 1 << 64


# Four: a batch may span two epochs, and there may be a training and an evaluation stream.
@lru_cache(maxsize=4)
def epoch_permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """Return the order of one epoch: int64 [length], read-only.

    Sorting Philox's raw words gives a permutation that never changes: numpy guarantees the bit stream of
    `random_raw`, but may change how `Generator.permutation` uses it. Equal words (chance
    below 1e-7 for a million examples) keep their index order, since the sort is stable.
    """
    # Seed and epoch each fill one half of the 128-bit key, so no two pairs share a key.
    words = np.random.Philox(key=(seed % _WORD) + _WORD * (epoch % _WORD)).random_raw(length)
    permutation = np.argsort(words, kind="stable").astype(np.int64)
    permutation.flags.writeable = False  # the cache returns this same array
    return permutation


def example_ids(seed: int, length: int, start: int, count: int) -> np.ndarray:
    """Return the examples at positions start .. start + count - 1 of the stream.

    Args:
        seed: any integer in [-2**63, 2**64); its value modulo 2**64 is used.
        length: number of examples in the data set, at least 1.
        start: first position, at least 0; an epoch is `length` positions.
        count: number of positions, at least 0; may span any number of epochs.

    Returns:
        int64 [count], each in [0, length).

    Raises:
        ValueError: length, start or count is out of range.
    """
    if length < 1 or start < 0 or count < 0:
        raise ValueError(f"need length >= 1, start >= 0, count >= 0; got {length=}, {start=}, {count=}")
    stop = start + count
    parts = [
        epoch_permutation(seed, epoch, length)[max(start - epoch * length, 0) : stop - epoch * length]
        for epoch in range(start // length, -(-stop // length))
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
