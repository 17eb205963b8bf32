import statistics

import pytest

from gormley_vision.errors import UserError
from gormley_vision.sweeps.draws import drawn, grid, log_uniform, one_of, uniform, zipped


def test_a_grid_is_every_combination_and_zipped_goes_in_step():
    assert list(grid({"a": [1, 2], "b": "xy"})) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert list(zipped({"a": [1, 2], "b": "xy"})) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: list(zipped({"a": [1, 2], "b": "x"})), "{'a': 2, 'b': 1}"),
        (lambda: list(grid({"seed": 3})), r"'seed' needs a list of values, as in \[3\]"),
        (lambda: list(zipped({"seed": 3})), r"'seed' needs a list of values, as in \[3\]"),
        (lambda: log_uniform(0, 1), "both must be above 0"),
    ],
)
def test_choices_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


def test_asking_for_more_draws_keeps_the_first_and_another_seed_draws_others():
    rates = {"rate": log_uniform(1e-5, 1e-1), "depth": one_of(2, 3)}
    ten = list(drawn(10, seed=3, distributions=rates))
    assert list(drawn(4, seed=3, distributions=rates)) == ten[:4]
    assert list(drawn(4, seed=4, distributions=rates)) != ten[:4]


def test_draws_follow_their_distributions():
    laws = {"log": log_uniform(1e-4, 1.0), "even": uniform(2.0, 4.0), "choice": one_of("a", "b", "c")}
    draws = list(drawn(2000, seed=0, distributions=laws))
    logs, evens, choices = ([draw[key] for draw in draws] for key in laws)
    assert 1e-4 <= min(logs) <= max(logs) <= 1.0
    assert 0.8e-2 < statistics.median(logs) < 1.25e-2  # half of the decades
    assert statistics.mean(evens) == pytest.approx(3.0, abs=0.05)
    assert all(choices.count(letter) == pytest.approx(667, abs=70) for letter in "abc")
