"""Parts of a split: TFDS's boundaries, one shuffled order, and the two sides of a cut."""

from types import MappingProxyType

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from gormley_vision.data.features import Feature
from gormley_vision.data.slices import Part, bounds, name_of
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError


class Numbers:
    """A source of so many examples; the label of each is its index."""

    class_names = ()
    features = MappingProxyType({"label": Feature("label", (), "int32")})

    def __init__(self, length):
        self.identity, self._length = {"source": "numbers"}, length

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        return {"label": np.array(index, np.int32)}


def labels(split, length):
    """Labels of a part, in its order; none where it is refused as empty."""
    try:
        part = Part(Numbers(length), *bounds(split, length))
    except UserError as error:
        assert "has no examples" in str(error)  # noqa: PT017 - empty sides of a cut are refused by design
        return []
    return [int(example["label"]) for example in part]


LENGTHS = st.integers(1, 300)
PERCENT = st.integers(-100, 100) | st.decimals(-100, 100, places=2)


@given(length=LENGTHS, data=st.data())
def test_the_two_sides_of_a_cut_are_disjoint_and_cover_everything(length, data):
    cut = data.draw(st.integers(-length, length).map(str) | PERCENT.map("{}%".format))
    left, right = labels(f"train[:{cut}]", length), labels(f"train[{cut}:]", length)
    assert sorted(left + right) == list(range(length))


@given(length=LENGTHS, data=st.data())
def test_bounds_are_those_of_tfds(length, data):
    number = st.integers(-length, length).map(str) | PERCENT.map("{}%".format)
    first, last = data.draw(number | st.just("")), data.draw(number | st.just(""))
    if not (first or last) or (first and last and first.endswith("%") != last.endswith("%")):
        return  # TFDS takes a mixture for percentages on both sides
    split = f"train[{first}:{last}]"
    info = tfds.core.SplitInfo(name="train", shard_lengths=[length], num_bytes=0)
    (expected,) = tfds.core.ReadInstruction.from_spec(split).to_absolute({"train": info})
    start, stop = expected.from_ or 0, length if expected.to is None else expected.to
    if start < stop:
        assert bounds(split, length) == (start, stop)
    else:
        with pytest.raises(UserError, match="has no examples"):
            bounds(split, length)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:4]", (0, 4)),
        ("train[4:]", (4, 10)),
        ("train[2:5]", (2, 5)),
        ("train[-3:]", (7, 10)),
        ("train[:-3]", (0, 7)),
        ("train[:80%]", (0, 8)),
        ("train[25%:]", (2, 10)),  # 2.5 is rounded to even
        ("train[35%:]", (4, 10)),  # 3.5 too
        ("train[12.5%:-10%]", (1, 9)),
        ("my photos[1_0%:]", (1, 10)),
    ],
)
def test_bounds_of_ten_examples(split, expected):
    assert bounds(split, 10) == expected


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[4:4]", r"has no examples.*--config\.data\.split='train\[:80%\]'"),
        ("train[:7]", "train has 6 examples"),
        ("train[-7:]", "train has 6 examples"),
        ("train[:101%]", "train has 6 examples, which are 100%"),
        ("train[1.5:]", r"1\.5 is not an integer number of examples: write 1\.5%"),
        ("train[]", "a part is written"),
        ("train[:]", "a part is written"),
        ("train[3]", "a part is written"),
        ("train[:2shard]", "a part is written"),
        ("train[:50%]+test", "a part is written"),
        ("train[", "a part is written"),
    ],
)
def test_a_part_that_is_not_there_is_refused(split, message):
    with pytest.raises(UserError, match=message):
        bounds(split, 6)


def test_the_name_of_a_split():
    assert [name_of(split) for split in ("train", "train[:80%]", "a-b c[3:]")] == ["train", "train", "a-b c"]


def test_both_sides_of_a_cut_of_sorted_digits_hold_every_class(settings):
    digits = settings | {"source": "mnist_5k", "channels": 1}
    for split, count in [("train[:80%]", 400), ("train[4000:]", 100)]:
        part = open_source(digits | {"split": split})
        counts = np.bincount([part._source.arrays.labels[i] for i in part._ids], minlength=10)
        # Of 500 a class; a share drawn without replacement has a standard deviation of 8.5.
        assert abs(counts - count).max() < 40


def test_a_part_does_not_depend_on_the_seed_and_ends(settings):
    part = open_source(settings | {"split": "test[-10:]"})
    assert len(list(part)) == len(part) == 10
    again = open_source(settings | {"split": "test[-10:]"})
    assert all((a["image"] == b["image"]).all() for a, b in zip(part, again, strict=True))
