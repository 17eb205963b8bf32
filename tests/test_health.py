"""Rules of health on made-up figures: what they see, what they do not, and that records alone determine verdicts."""

import itertools

import pytest

from gormley_vision.health import Monitor, Rule, diverging, of_common, spike, worsening

# FID by thousands of steps of StudioGAN's logged DCGAN on CIFAR-10 (its logs/CIFAR10, 2020_09_15): best at 42, and then
# a collapse that nobody noticed for four hours. 150 and 90 stand for the way down; the end was between 131 and 142.
COLLAPSED = {10: 150.0, 20: 90.0, 42: 49.0, 50: 86.0, 74: 102.0, 98: 131.0, 120: 142.0, 150: 138.0, 200: 140.0}


def verdicts(rule, values, name="x", rules=None):
    monitor = Monitor([rule] if rules is None else rules)
    found = [monitor.add({"step": step, name: value}) for step, value in enumerate(values, start=1)]
    return [verdict.step for verdict in itertools.chain(*found)]


def test_a_distance_that_turned_is_seen_long_before_the_end():
    monitor, found = Monitor([worsening("eval/frechet_distance")]), []
    for step, value in COLLAPSED.items():
        found += monitor.add({"step": step, "eval/frechet_distance": value})
    (verdict,) = found
    assert (verdict.name, verdict.step) == ("worsening", 74)  # thousands of steps, of 200
    assert str(verdict) == "step 74: worsening: eval/frechet_distance is 102, and was 49 at step 42"


def test_noise_around_a_falling_distance_is_no_turn():
    falling = [100, 60, 45, 50, 40, 55, 35, 40, 33, 47, 34]
    assert verdicts(worsening("x"), falling) == []
    assert verdicts(worsening("x"), [10, 16, 10, 16, 10]) == []  # one evaluation in a row
    assert verdicts(worsening("x"), [10, 16, 16, 16, 16]) == [3]  # once, until it is better


def test_a_verdict_comes_again_after_its_sign_was_gone():
    assert verdicts(worsening("x"), [10, 16, 16, 10, 16, 16]) == [3, 6]


def test_a_spike_is_far_above_what_is_usual():
    usual = [1.0, 1.1, 0.9, 1.05, 0.95] * 4
    assert verdicts(spike("x"), [*usual, 1.4]) == []
    assert verdicts(spike("x"), [*usual, 3.0, 1.0]) == [21]
    assert verdicts(spike("x"), [*usual[:5], 9.0]) == []  # too few to know what is usual
    assert not spike("x").serious


def test_a_loss_that_comes_back_above_its_first_value_diverges():
    assert verdicts(diverging("x"), [2.3, 1.0, 0.5, 2.4, 2.5, 2.6, 2.7]) == [6]
    assert verdicts(diverging("x"), [2.3, 1.0, 0.5, 2.4, 0.6, 2.5, 0.5]) == []
    assert verdicts(diverging("x"), [2.3, 2.5, 2.6, 2.7]) == []  # it never learned
    assert verdicts(diverging("x"), [-1.0, -3.0, 5.0, 5.0, 5.0]) == []  # no loss that begins above 0


def test_losses_and_distances_of_any_task_have_rules():
    names = ["loss/classifier", "accuracy/train", "eval/frechet_distance", "step"]
    assert [(rule.verdict, rule.figures) for rule in of_common(names)] == [
        ("loss_spike", ("loss/classifier",)),
        ("divergence", ("loss/classifier",)),
        ("worsening", ("eval/frechet_distance",)),
    ]
    monitor, found = Monitor(None), []
    for step, loss in enumerate([2.3, 1.0, 0.5, 2.4, 2.5, 2.6], start=1):
        found += monitor.add({"step": step, "loss/classifier": loss})
    assert [(verdict.name, verdict.step) for verdict in found] == [("divergence", 6)]


def test_the_last_clean_step_is_before_the_first_sign():
    monitor = Monitor([worsening("x"), spike("y")])
    for step, x in enumerate([10, 9, 16, 16], start=1):
        monitor.add({"step": step, "x": x, "y": 1.0})
    assert monitor.clean == 2
    monitor.add({"step": 5, "y": 1.0})  # says nothing of x
    assert monitor.clean == 2


def test_a_sign_lasts_until_its_figures_come_again():
    monitor = Monitor([worsening("x"), diverging("y")])
    for step, line in enumerate([{"x": 10}, {"y": 1.0}, {"x": 16}, {"y": 0.9}, {"y": 0.8}], start=1):
        monitor.add({"step": step, **line})
    assert monitor.clean == 2  # y's lines say nothing of x
    monitor.add({"step": 6, "x": 10})
    assert monitor.clean == 6


def test_what_a_sign_of_several_lines_can_have_begun_with_is_not_clean():
    def sign(lines):
        return "x" if len(lines) > 2 and min(line["x"] for line in lines[-3:]) > 1 else ""

    monitor = Monitor([Rule("high", ("x",), sign, begins=lambda line: line["x"] > 1)])
    clean = []
    for step, x in enumerate([0, 2, 0, 2, 2, 2], start=1):
        found = monitor.add({"step": step, "x": x})
        clean.append(monitor.clean)
    assert clean == [1, 1, 3, 3, 3, 3]
    assert [verdict.step for verdict in found] == [6]


def test_figures_that_are_forgotten_are_compared_no_more():
    monitor = Monitor([worsening("x")])
    for step, x in enumerate([10, 16, 16, 17], start=1):
        monitor.add({"step": step, "x": x})
    assert monitor.clean == 1
    monitor.forget("y")
    assert monitor.add({"step": 5, "x": 16}) == []
    assert monitor.clean == 1
    monitor.forget("x")
    assert monitor.add({"step": 6, "x": 16}) == []
    assert monitor.clean == 6


@pytest.mark.parametrize("cut", range(8))
def test_continued_from_its_records_it_comes_to_the_same_verdicts(cut):
    lines = [{"step": i, "loss/a": x} for i, x in enumerate([2.3, 1.0, 0.5, 2.4, 2.5, 2.6, 0.4, 2.9])]
    whole = Monitor(None)
    found = [whole.add(line) for line in lines]
    resumed = Monitor(None, lines[:cut])
    assert [resumed.add(line) for line in lines[cut:]] == found[cut:]
    assert resumed.clean == whole.clean


def test_a_rule_reads_only_lines_that_have_all_its_figures():
    seen = []
    rule = Rule("odd", ("a", "b"), lambda lines: seen.append(len(lines)) or "")
    Monitor([rule], [{"step": 1, "a": 1.0}, {"step": 2, "a": 1.0, "b": 2.0}, {"step": 3, "b": 0.0}])
    assert seen == [1]
