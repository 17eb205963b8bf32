"""Verdicts on a run's health, as a function of the figures that it records; loads no jax.

A rule looks at the lines recorded so far that have its figures. If its sign shows in `checks` of them in a row, that is
a verdict: a sentence with the figures behind it. Nothing else is remembered, so a run that was killed and continues
from its records comes to the same verdicts. Rules of every task are here (`of_common`); a task may have its own
instead.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

Line = Mapping[str, float]  # a line of metrics.jsonl: 'step', and figures
ACTIONS = ("none", "warn", "stop", "roll_back")
_RECENT = 20  # lines, of what is usual


@dataclasses.dataclass(frozen=True)
class Rule:
    """What is wrong (`verdict`), the figures that it reads, and how many checks in a row must show its sign.

    `sign` is a function of the lines so far, the newest last, to what is seen there, or '' if all is well. A sign of
    several lines has `begins`: whether a line can be one of them. Only a serious verdict stops a run or rolls it back.
    """

    verdict: str
    figures: tuple[str, ...]
    sign: Callable[[Sequence[Line]], str]
    checks: int = 1
    serious: bool = True
    begins: Callable[[Line], bool] = lambda line: False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A rule's verdict at a step, and what was seen."""

    name: str
    step: int
    seen: str
    serious: bool

    def __str__(self) -> str:
        return f"step {self.step}: {self.name.replace('_', ' ')}: {self.seen}"


class Monitor:
    """Applies rules, or, without any, those of every task, to lines in order.

    Attributes:
        clean: the last step with figures of a serious rule at which no such rule's sign showed, or could have begun;
            0 at first. What is there lies before everything that the next verdict will be of.
    """

    def __init__(self, rules: Iterable[Rule] | None, lines: Iterable[Line] = ()) -> None:
        self.clean = 0
        self._is_common, self._names = rules is None, set[str]()
        self._lines: dict[Rule, list[Line]] = {rule: [] for rule in rules or ()}
        self._in_a_row = dict.fromkeys(self._lines, 0)
        self._ill = set[Rule]()
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> list[Verdict]:
        """Return the verdicts that this line brings: each once, until its sign was absent."""
        if self._is_common and (fresh := sorted(line.keys() - self._names)):
            self._names |= line.keys()
            self._lines |= {rule: [] for rule in of_common(fresh)}
        found, serious = [], False
        for rule in self._lines:
            if not all(name in line for name in rule.figures):
                continue
            self._lines[rule].append(line)
            seen = rule.sign(self._lines[rule])
            self._in_a_row[rule] = self._in_a_row.get(rule, 0) + 1 if seen else 0
            if rule.serious:
                serious = True
                (self._ill.add if seen or rule.begins(line) else self._ill.discard)(rule)
            if self._in_a_row[rule] == rule.checks:
                found.append(Verdict(rule.verdict, int(line["step"]), seen, rule.serious))
        if serious and not self._ill:  # a rule without figures in this line is as it was
            self.clean = int(line["step"])
        return found

    def forget(self, name: str) -> None:
        """Forget the figures of this name so far: those that come are measured otherwise."""
        for rule in self._lines:
            if name in rule.figures:
                self._lines[rule], self._in_a_row[rule] = [], 0
                self._ill.discard(rule)


def of_common(names: Iterable[str]) -> list[Rule]:
    """Return the rules for those of these figures that any task may have: losses that are minimised, and distances."""
    rules = []
    for name in names:
        if name == "loss" or name.startswith("loss/"):
            rules += [spike(name), diverging(name)]
        if name.endswith("frechet_distance"):
            rules.append(worsening(name))
    return rules


def spike(name: str) -> Rule:
    """A value far above the usual ones: 10 scaled median deviations, and half as much again as the median."""

    def sign(lines: Sequence[Line]) -> str:
        *before, now = [line[name] for line in lines[-_RECENT - 1 :]]
        if len(before) < _RECENT // 2:
            return ""
        usual = statistics.median(before)
        spread = 1.4826 * statistics.median(abs(x - usual) for x in before)  # the deviation of a normal distribution
        if now <= usual + max(10 * spread, 0.5 * abs(usual)):
            return ""
        return f"{name} is {now:.3g}, and was {usual:.3g} (median of {len(before)} lines)"

    return Rule("loss_spike", (name,), sign, serious=False)


def diverging(name: str) -> Rule:
    """A minimised loss that had fallen by half, and is back above its first value in three lines in a row."""

    def sign(lines: Sequence[Line]) -> str:
        first, best, now = lines[0][name], min(line[name] for line in lines), lines[-1][name]
        if not (first > 0 and best < first / 2 and now > first):
            return ""
        return f"{name} is {now:.3g}, was {best:.3g} at best and {first:.3g} at first"

    return Rule("divergence", (name,), sign, checks=3)


def worsening(name: str) -> Rule:
    """A distance half as large again as its best, in two evaluations in a row: it has turned and stays there."""

    def sign(lines: Sequence[Line]) -> str:
        best = min(lines, key=lambda line: line[name])
        if lines[-1][name] <= 1.5 * best[name]:
            return ""
        return f"{name} is {lines[-1][name]:.3g}, and was {best[name]:.3g} at step {int(best['step'])}"

    return Rule("worsening", (name,), sign, checks=2)
