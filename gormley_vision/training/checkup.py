"""Examines a run while it trains, judges what it records, and warns, stops or rolls back (docs/health.md).

What a roll-back needs to be repeated exactly lies in `rollbacks.json`: for each, the verdict, its step, and the step
that training went back to. From there on the run's key, and so all noise, is another one.
"""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gormley_vision.data.batches import Batches
from gormley_vision.errors import UserError
from gormley_vision.files import read_json, write_json
from gormley_vision.health import Line, Monitor, Verdict
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.cards import Card, card_of, unlike
from gormley_vision.training.hosts import put_global
from gormley_vision.training.sharding import Shardings
from gormley_vision.training.task import Examined, Judged, Task

log = logging.getLogger(__name__)
EXAMPLES = 128  # of real examples, the same in every check
MOST_ROLLBACKS = 3
_MEASURED = "eval/frechet_distance"  # the figure that cards/<step>.json describes
_GO_ON = "To go on anyway, run the same command with --config.health.action=warn"


class RollBack(Exception):
    """Training goes back to the checkpoint of step `to` (0: to the start), because of what `why` says of `step`."""

    def __init__(self, why: str, step: int, to: int) -> None:
        super().__init__(why)
        self.why, self.step, self.to = why, step, to

    @property
    def what(self) -> str:
        """Why, without what could be typed at its step, which is undone: 'step 7: loss is not finite (...)'."""
        return self.why.partition(";")[0]


class Checkup:
    """Figures and verdicts of one run; `every` steps its task examines the state (0: never).

    Attributes:
        healthy: the newest step with a regular checkpoint that was saved while the run was healthy; 0 for none.
    """

    def __init__(self, task: Task, batches: Batches, held_out: Batches | None, every: int, action: str) -> None:
        self.every, self.action = every, action
        self._task = task if isinstance(task, Examined) and every else None
        self._batches, self._held_out = batches, held_out
        self._rules = task.rules if isinstance(task, Judged) else None
        self._examine: Callable | None = None
        self._card: Card | None = None  # of the last distance

    def start(self, workdir: Path, lines: Sequence[Line], shardings: Shardings, checkpoint_every: int) -> None:
        """Begin or continue the run in `workdir`, whose `lines` were recorded so far."""
        self._workdir, self._shardings, self._checkpoint_every = workdir, shardings, checkpoint_every
        self._monitor, self._card = Monitor(self._rules), None
        for line in lines:
            self._measured_otherwise(line)
            self._monitor.add(line)

    @property
    def healthy(self) -> int:
        """The newest step of a regular checkpoint at which nothing serious showed; 0 for none."""
        return self._monitor.clean - self._monitor.clean % self._checkpoint_every if self._checkpoint_every else 0

    def due(self, step: int) -> bool:
        """Return whether the state of this step is examined."""
        return self._task is not None and step % self.every == 0

    def examined(self, state: Any, key: jax.Array) -> dict[str, float]:
        """Return {'health/NAME': figure} of the state."""
        assert self._task is not None
        if self._examine is None:
            self._examine = self._shardings.jit(self._task.examine, out_shardings=self._shardings.replicated)
            sets = [_some(batches) if batches else {} for batches in (self._batches, self._held_out)]
            self._on_device = [put_global(examples, self._shardings.replicated) for examples in sets]
        found = jax.device_get(self._examine(state, key, *self._on_device))
        # Overflow is recorded as the largest number: JSON has no infinity, and rules shall see how large it is.
        most = float(np.finfo(np.float32).max)
        finite = {name: np.nan_to_num(value, nan=most, posinf=most, neginf=-most) for name, value in found.items()}
        return {f"health/{name}": float(value) for name, value in finite.items()}

    def judged(self, line: Line) -> list[Verdict]:
        """Return and log the verdicts that a line brings."""
        if _MEASURED in line:
            ckpt.wait_for_all("card")  # until the first process has written it
        if differing := self._measured_otherwise(line):
            log.warning(
                "step %d: from here on %s is measured otherwise (%s): verdicts and --best leave out earlier ones",
                line["step"],
                _MEASURED,
                ", ".join(differing),
            )
        verdicts = self._monitor.add(line) if self.action != "none" else []
        for verdict in verdicts:
            log.warning("%s", verdict)
        return verdicts

    def _measured_otherwise(self, line: Line) -> list[str]:
        """Return in what a line's distance is unlike the one before; past distances are then forgotten."""
        if _MEASURED not in line:
            return []
        card, before = card_of(self._workdir, int(line["step"])), self._card
        self._card = card or before
        differing = unlike(before, card) if before and card else []
        if differing:
            self._monitor.forget(_MEASURED)
        return differing

    def act(self, verdicts: Sequence[Verdict]) -> None:
        """Stop or go back, if a verdict is serious and health.action says so.

        Raises:
            UserError: the run is stopped. Says why, and what to type to go on anyway.
            RollBack: it goes back.
        """
        serious = [verdict for verdict in verdicts if verdict.serious]
        if not serious or self.action not in ("stop", "roll_back"):
            return
        if self.action == "roll_back":
            self.roll_back(str(serious[0]), serious[0].step, _GO_ON)
        raise UserError(
            f"{serious[0]}\nstopped, because health.action=stop; its checkpoints are in {self._workdir}. {_GO_ON}"
        )

    def roll_back(
        self,
        why: str,
        step: int,
        instead: str = "Change it, for instance to lower learning rates, in another --workdir",
    ) -> None:
        """Go back to the newest healthy checkpoint. `instead` is what the user can do, if that does not help.

        Raises:
            UserError: this happened too often.
            RollBack: otherwise.
        """
        before = rollbacks_of(self._workdir)
        if len(before) >= MOST_ROLLBACKS:
            steps = ", ".join(str(found["step"]) for found in before)
            raise UserError(
                f"{why}\nstopped: this run was rolled back {len(before)} times already (at steps {steps}), so its "
                f"recipe and not its luck is at fault. {instead}"
            )
        raise RollBack(why, step, self.healthy)


def _some(batches: Batches) -> dict[str, np.ndarray]:
    """Return EXAMPLES examples of a data set, or all if it has fewer, drawn once for all."""
    chosen = np.random.default_rng(0).permutation(batches.length)[:EXAMPLES]
    return batches.examples(np.sort(chosen))


def rollbacks_of(workdir: Path) -> list[dict[str, Any]]:
    """Return the run's roll-backs, in order: 'why', 'step' and 'to'."""
    path = workdir / "rollbacks.json"
    return read_json(path) if path.exists() else []


def note_rollback(workdir: Path, found: RollBack) -> None:
    """Record a roll-back: from then on it is part of the run."""
    write_json(
        workdir / "rollbacks.json", [*rollbacks_of(workdir), {"why": found.why, "step": found.step, "to": found.to}]
    )
    where = f"the checkpoint of step {found.to}" if found.to else "the start"
    log.warning(
        "going back to %s with other noise, by health.action=roll_back, because of %s; see %s",
        where,
        found.what,
        shlex.quote(str(workdir / "rollbacks.json")),
    )


def drop_undone(workdir: Path) -> None:
    """Set aside the checkpoints that the last roll-back undid, as a process that was killed may have left them."""
    found = rollbacks_of(workdir)
    folder = workdir / "checkpoints"
    for step in ckpt.steps_of(folder) if found else []:
        if step > found[-1]["to"] and _attempt(ckpt.read_meta(folder / str(step))) < len(found):
            ckpt.remove(folder / str(step))


def _attempt(meta: Mapping[str, Any]) -> int:
    return meta.get("rollbacks", 0)
