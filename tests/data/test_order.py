import numpy as np
import pytest

from gormley_vision.data.order import epoch_permutation, example_ids


def test_golden_order():
    # Written down on 2026-11-23 from numpy 2.4.6; a change here breaks the resume of every older run.
    assert example_ids(0, 10, 0, 20).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7, 5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert example_ids(1234, 7, 5, 6).tolist() == [5, 6, 0, 5, 6, 4]


def test_each_epoch_is_a_permutation_and_epochs_differ():
    ids = example_ids(3, 100, 0, 1000).reshape(10, 100)
    assert (np.sort(ids, axis=1) == np.arange(100)).all()
    assert len({tuple(epoch) for epoch in ids}) == 10


@pytest.mark.parametrize(("start", "count"), [(0, 0), (0, 1), (5, 13), (11, 1), (11, 2), (12, 12), (7, 50)])
def test_any_window_is_a_slice_of_the_stream(start, count):
    stream = np.concatenate([epoch_permutation(9, epoch, 12) for epoch in range(6)])
    ids = example_ids(9, 12, start, count)
    assert ids.dtype == np.int64
    assert (ids == stream[start : start + count]).all()


def test_seed_and_epoch_do_not_mix():
    # A sum or an exclusive or of the two would make these pairs collide.
    pairs = [(0, 1), (1, 0), (1, 1), (2, 3), (3, 2), (0, 0), (-1, 0), (2**63, 0)]
    assert len({tuple(epoch_permutation(seed, epoch, 50)) for seed, epoch in pairs}) == len(pairs)


def test_every_example_comes_first_equally_often():
    first = [int(epoch_permutation(0, epoch, 5)[0]) for epoch in range(5000)]
    counts = np.bincount(first, minlength=5)
    # Chi-square with 4 degrees of freedom: 23.5 is passed once in 10,000 seeds.
    assert ((counts - 1000) ** 2 / 1000).sum() < 23.5


def test_the_cached_permutation_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        epoch_permutation(0, 0, 5)[0] = 1
    example_ids(0, 5, 0, 5)[0] = 99
    assert sorted(example_ids(0, 5, 0, 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("length", "start", "count"), [(0, 0, 1), (5, -1, 1), (5, 0, -1)])
def test_nonsense_is_refused(length, start, count):
    with pytest.raises(ValueError, match="length"):
        example_ids(0, length, start, count)
