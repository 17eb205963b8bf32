"""Verdicts in the loop: recorded, stopped by, and rolled back from, exactly, however often the run is killed."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from gormley_vision import run as program
from gormley_vision.command_line import load_config_file
from gormley_vision.errors import UserError
from gormley_vision.health import Rule
from gormley_vision.sampling import restore
from gormley_vision.tasks.gan.task import GAN
from gormley_vision.training import checkup, loop

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config():
    """A GAN of 10 steps that is examined each 2, and saved each 2."""
    config = load_config_file(f"{ROOT}/configs/dcgan_mnist.py:smoke")
    config.mesh.data = 1
    config.duration = "10 steps"
    config.data.update(source="fake")
    config.checkpoint.update(every="2 steps", keep_last=1)
    config.log.update(every="1 steps", samples_every="10 steps")
    config.health.every = "2 steps"
    return config


def run(config, folder, **changes):
    with config.unlocked():
        changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return program.run(changed.to_dict(), folder)


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("time")
    return lines


def same_state(a, b):
    a, b = (jax.tree.leaves(restore(folder).state) for folder in (a, b))
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def plain(config, tmp_path_factory):
    """The run without any verdict."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GAN, "rules", ())
        assert run(config, folder) == 0
    return folder


@pytest.fixture
def ill(plain, monkeypatch):
    """A rule whose sign is the diversity that the plain run has at step 6: with other noise it does not show."""
    known = next(line["health/diversity"] for line in lines_of(plain) if line["step"] == 6)

    def sign(lines):
        return "as foretold" if lines[-1]["health/diversity"] == known else ""

    monkeypatch.setattr(GAN, "rules", (Rule("collapse", ("health/diversity",), sign),))


def test_examined_at_its_interval_and_training_is_as_without(config, plain, tmp_path):
    examined = [line["step"] for line in lines_of(plain) if "health/diversity" in line]
    assert examined == [2, 4, 6, 8, 10]
    assert run(config, tmp_path / "run", health__every="0 steps", health__action="none") == 0
    assert same_state(plain, tmp_path / "run")


def test_held_out_examples_are_examined_and_a_split_that_is_not_there_is_refused(config, tmp_path):
    changes = {"health__held_out": "train", "stop_after": "2 steps"}
    assert run(config, tmp_path / "run", **changes) == 0
    line = lines_of(tmp_path / "run")[-1]
    assert line["health/held_out_order"] == line["health/order"]  # the same examples, by choice
    with pytest.raises(UserError, match=r"health.held_out=nowhere: .*split"):
        run(config, tmp_path / "other", health__held_out="nowhere")


def test_a_warning_is_in_the_records_and_in_the_log_and_training_goes_on(config, plain, ill, tmp_path):
    assert run(config, tmp_path / "run") == 0
    assert [line["step"] for line in lines_of(tmp_path / "run") if "verdict/collapse" in line] == [6]
    assert "step 6: collapse: as foretold" in (tmp_path / "run" / "run.log").read_text()
    assert same_state(plain, tmp_path / "run")


def test_a_stopped_run_says_why_and_stops_there_again(config, ill, tmp_path):
    for _ in range(2):
        with pytest.raises(UserError, match=r"step 6: collapse: as foretold\nstopped.*--config.health.action=warn"):
            run(config, tmp_path / "run", health__action="stop")
        assert lines_of(tmp_path / "run")[-1]["verdict/collapse"] == 1
    assert run(config, tmp_path / "run") == 0
    assert lines_of(tmp_path / "run")[-1]["step"] == 10


@pytest.fixture(scope="module")
def rolled_back(config, plain, tmp_path_factory):
    """The run that went back from step 6 to its healthy checkpoint of step 4, and was never interrupted."""
    folder = tmp_path_factory.mktemp("rolled_back") / "run"
    known = next(line["health/diversity"] for line in lines_of(plain) if line["step"] == 6)
    rule = Rule("collapse", ("health/diversity",), lambda lines: "x" if lines[-1]["health/diversity"] == known else "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GAN, "rules", (rule,))
        assert run(config, folder, health__action="roll_back") == 0
    return folder


def test_it_goes_back_to_the_last_healthy_checkpoint_and_on_with_other_noise(plain, rolled_back):
    found, before = lines_of(rolled_back), lines_of(plain)
    assert [line["step"] for line in found] == list(range(1, 11))
    assert found[:4] == before[:4]
    assert all(a["loss/generator"] != b["loss/generator"] for a, b in zip(found[4:], before[4:], strict=True))
    (entry,) = json.loads((rolled_back / "rollbacks.json").read_text())
    assert (entry["step"], entry["to"]) == (6, 4)
    assert "collapse" in entry["why"]
    assert "going back to the checkpoint of step 4" in (rolled_back / "run.log").read_text()


_SLOW = pytest.mark.slow


@pytest.mark.parametrize("stops", [[5], *(pytest.param(s, marks=_SLOW) for s in ([3], [7], [1, 5, 9]))], ids=str)
def test_interrupted_anywhere_it_ends_with_the_same_bits(config, ill, rolled_back, tmp_path, stops):
    for stop in stops:
        run(config, tmp_path / "run", health__action="roll_back", stop_after=f"{stop} steps")
    assert run(config, tmp_path / "run", health__action="roll_back") == 0
    assert lines_of(tmp_path / "run") == lines_of(rolled_back)
    assert same_state(rolled_back, tmp_path / "run")


class Killed(Exception):
    """Stands for the end of the process."""


@_SLOW
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_note_of_a_roll_back_it_ends_with_the_same_bits(
    config, ill, rolled_back, tmp_path, monkeypatch, moment
):
    def note(workdir, found):
        if moment == "after":
            checkup.note_rollback(workdir, found)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop, "note_rollback", note)
        with pytest.raises(Killed):
            run(config, tmp_path / "run", health__action="roll_back")
    assert run(config, tmp_path / "run", health__action="roll_back") == 0
    assert lines_of(tmp_path / "run") == lines_of(rolled_back)
    assert same_state(rolled_back, tmp_path / "run")


def test_a_recipe_that_is_ill_with_any_noise_is_stopped_in_the_end(config, monkeypatch, tmp_path):
    rule = Rule("collapse", ("health/diversity",), lambda lines: "again" if lines[-1]["step"] == 6 else "")
    monkeypatch.setattr(GAN, "rules", (rule,))
    with pytest.raises(UserError, match=r"rolled back 3 times already \(at steps 6, 6, 6\)"):
        run(config, tmp_path / "run", health__action="roll_back")


@_SLOW
def test_a_step_that_is_not_finite_is_rolled_back_too(config, tmp_path):
    high = {"generator_optimizer__learning_rate": 1e6, "discriminator_optimizer__learning_rate": 1e6}
    with pytest.raises(UserError, match=r"is not finite[\s\S]*rolled back 3 times"):
        run(config, tmp_path / "run", health__action="roll_back", generator_optimizer__name="momentum_sgd", **high)
    assert all("is not finite" in entry["why"] for entry in json.loads((tmp_path / "run/rollbacks.json").read_text()))
