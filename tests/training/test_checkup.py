"""Verdicts in the loop: recorded, stopped by, and rolled back from, exactly, however often the run is killed."""

import contextlib
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest

from gormley_vision import experiment
from gormley_vision import run as program
from gormley_vision.command_line import load_config_file
from gormley_vision.errors import UserError
from gormley_vision.health import Rule, Verdict
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
    changes = {"health__held_out": "test", "stop_after": "2 steps"}
    assert run(config, tmp_path / "run", **changes) == 0
    line = lines_of(tmp_path / "run")[-1]
    assert line["health/held_out_order"] != line["health/order"]  # other examples
    with pytest.raises(UserError, match=r"health.held_out=nowhere: .*--config.health.held_out=train or test"):
        run(config, tmp_path / "other", health__held_out="nowhere")


CUT = r"train with --config.data.split='train\[:90%\]', and pass --config.health.held_out='train\[90%:\]'$"


@pytest.mark.parametrize(
    ("source", "trained", "held_out", "message"),
    [
        (
            "fake",
            "train",
            "train",
            f"health.held_out=train has examples that are trained on .data.split=train.: .*{CUT}",
        ),
        ("fake", "train", "train[90%:]", CUT),
        ("fake", "train[:60%]", "train[50%:]", CUT),
        ("mnist_5k", "train", "test", f"it has no 'test': name a part .*{CUT}"),
        ("fake", "train[:60%]", "train[60%:]", ""),
        ("fake", "train", "test", ""),
    ],
)
def test_what_is_trained_on_is_not_held_out(config, source, trained, held_out, message):
    changed = config.to_dict()
    changed["data"] |= {"source": source, "split": trained}
    changed["health"]["held_out"] = held_out
    batches = experiment.make_batches(changed)
    task = experiment.make_task(changed, batches.description)
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
        experiment.make_checkup(changed, task, batches)


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


def test_it_goes_back_to_before_a_sign_of_several_checks_began(config, plain, tmp_path, monkeypatch):
    known = [line["health/diversity"] for line in lines_of(plain) if line["step"] in (4, 6)]

    def sign(lines):
        return "x" if [line["health/diversity"] for line in lines[-2:]] == known else ""

    rule = Rule("collapse", ("health/diversity",), sign, begins=lambda line: line["health/diversity"] in known)
    monkeypatch.setattr(GAN, "rules", (rule,))
    assert run(config, tmp_path / "run", health__action="roll_back", checkpoint__keep_last=1) == 0
    (entry,) = json.loads((tmp_path / "run" / "rollbacks.json").read_text())
    assert (entry["step"], entry["to"]) == (6, 2)  # not 4, where the sign had begun
    assert lines_of(tmp_path / "run")[:2] == lines_of(plain)[:2]
    assert lines_of(tmp_path / "run")[2]["loss/generator"] != lines_of(plain)[2]["loss/generator"]


def a_card(workdir, step, sha256="a", count=100):
    extractor = {"name": "x", "sha256": sha256, "preparation": ""}
    card = {"figures": {}, "is_fid": False, "extractor": extractor, "real": {}, "fake": {"count": count}}
    (workdir / "cards").mkdir(exist_ok=True)
    (workdir / "cards" / f"{step:08d}.json").write_text(json.dumps(card))


def judged(workdir, lines, cut):
    """Verdicts of a checkup that continues after the first `cut` lines."""
    found = checkup.Checkup(object(), None, None, every=0, action="warn")
    found.start(workdir, lines[:cut], None, checkpoint_every=1)
    return [(verdict.name, verdict.step) for line in lines[cut:] for verdict in found.judged(line)], found.healthy


DISTANCES = [10.0, 9.0, 30.0, 31.0, 28.0, 50.0, 51.0]


@pytest.mark.parametrize("changed", [{"sha256": "b"}, {"count": 50}], ids=["another network", "fewer samples"])
def test_distances_that_are_measured_otherwise_are_not_compared(tmp_path, caplog, changed):
    lines = [{"step": i, "eval/frechet_distance": x} for i, x in enumerate(DISTANCES, start=1)]
    assert judged(tmp_path, lines, 0) == ([("worsening", 4)], 2)  # without cards, as of earlier runs
    for i in range(1, 8):
        a_card(tmp_path, i)
    assert judged(tmp_path, lines, 0) == ([("worsening", 4)], 2)
    assert "measured otherwise" not in caplog.text
    for i in range(3, 8):
        a_card(tmp_path, i, **changed)
    assert judged(tmp_path, lines, 0) == ([("worsening", 7)], 5)
    field = "extractor.sha256" if "sha256" in changed else "fake.count"
    assert f"step 3: from here on eval/frechet_distance is measured otherwise ({field})" in caplog.text
    assert caplog.text.count("measured otherwise") == 1
    for cut in range(1, 7):  # however often it is interrupted
        assert judged(tmp_path, lines, cut) == ([("worsening", 7)], 5)


def test_a_roll_back_says_why_and_what_can_be_typed(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    nan = "step 7: loss is not finite (3 of 8 arrays); this step was not saved. To examine it, run\n  replay"
    for _ in range(3):
        checkup.note_rollback(tmp_path, checkup.RollBack(nan, 7, 0))
    why = "going back to the start with other noise, by health.action=roll_back, because of step 7: loss is not finite"
    assert why in caplog.text
    assert "replay" not in caplog.text  # of a step that is undone
    found = checkup.Checkup(object(), None, None, every=0, action="roll_back")
    found.start(tmp_path, [], None, checkpoint_every=1)
    with pytest.raises(UserError, match=r"not its luck is at fault\. Change it") as error:
        found.roll_back(nan, 7)
    assert "action=warn" not in str(error.value)  # which would not go on past a NaN
    with pytest.raises(UserError, match=r"rolled back 3 times.*--config.health.action=warn"):
        found.act([Verdict("collapse", 7, "x", serious=True)])


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
