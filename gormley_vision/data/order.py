"""The order in which examples are visited: a pure function of (seed, length, position).

Examples come in one endless stream of shuffled epochs. Position `p` lies in epoch `p // length`, and an
epoch's permutation depends on (seed, epoch, length) alone, so a resumed run, or one on another number of
hosts, finds the same examples without replaying anything.
"""

from functools import lru_cache

import numpy as np

_WORD = 1 << 64


# Four: the two epochs that a batch may straddle, for a training and an evaluation stream side by side.
@lru_cache(maxsize=4)
def epoch_permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order of one epoch: int64 [length], read-only.

    Sorting Philox's raw words is a permutation that stays the same for ever: numpy guarantees the bit
    stream of `random_raw`, but may change what `Generator.permutation` makes of it. Equal words (chance
    below 1e-7 for a million examples) keep their index order, since the sort is stable.
    """
    # (seed, epoch) fill one half of the 128-bit key each, so that no two pairs share a key.
    words = np.random.Philox(key=(seed % _WORD) + _WORD * (epoch % _WORD)).random_raw(length)
    permutation = np.argsort(words, kind="stable").astype(np.int64)
    permutation.flags.writeable = False  # the cache hands out this very array
    return permutation


def example_ids(seed: int, length: int, start: int, count: int) -> np.ndarray:
    """Which examples lie at positions start .. start + count - 1 of the stream.

    Args:
      seed: any integer in [-2**63, 2**64); its value modulo 2**64 is used.
      length: number of examples in the data set, at least 1.
      start: first position, at least 0; an epoch is `length` positions.
      count: how many positions, at least 0; may cross any number of epochs.

    Returns:
      int64 [count], each in [0, length).

    Raises:
      ValueError: length, start or count out of range.
    """
    if length < 1 or start < 0 or count < 0:
        raise ValueError(f"need length >= 1, start >= 0, count >= 0; got {length=}, {start=}, {count=}")
    stop = start + count
    pieces = [
        epoch_permutation(seed, epoch, length)[max(start - epoch * length, 0) : stop - epoch * length]
        for epoch in range(start // length, -(-stop // length))
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
