"""Experiment trackers: one id, each step once, and no failure of theirs is the run's. With a made-up tracker.

The real ones: test_trackers.py.
"""

import collections
import json
from typing import ClassVar

import numpy as np
import pytest

from gormley_vision import run as run_module
from gormley_vision.errors import UserError
from gormley_vision.training import loop, trackers
from gormley_vision.training.tracking import Note


class Fake:
    """A tracker whose server is a class attribute, and which fails when it is told to."""

    package = "json"
    where = "here"
    runs: ClassVar[dict] = collections.defaultdict(list)  # of each id, what was sent: (step, what)
    fails: ClassVar[set] = set()

    def __init__(self, workdir, run_id, config):
        self.fail_at("open")
        self.sent = self.runs[run_id]
        self.config = config

    def scalars(self, step, values):
        self.fail_at(("scalars", step))
        assert all(type(value) is float for value in values.values())
        self.sent.append((step, values))

    def picture(self, step, image):
        self.fail_at(("picture", step))
        assert (image.ndim, image.shape[2], image.dtype) == (3, 3, np.uint8)
        self.sent.append((step, "picture"))

    def close(self):
        self.fail_at("close")

    def fail_at(self, moment):
        if moment in self.fails:
            raise ConnectionError(f"no server\nat {moment}")


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Fake)
    monkeypatch.setattr(Fake, "runs", collections.defaultdict(list))
    monkeypatch.setattr(Fake, "fails", set())
    return Fake


@pytest.fixture
def kill_at(monkeypatch):
    """A function: the process fails at the start of this step, counted from where it starts."""

    put = loop.put_global

    def kill_at(step):
        count = 0

        def placed(*piece):
            nonlocal count
            count += 1
            if count == step:
                raise OSError("killed")
            return put(*piece)

        monkeypatch.setattr(loop, "put_global", placed)

    return kill_at


def recorded(workdir):
    """What the files say that a tracker must have: (step, what), in the order of the steps."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    figures = [(line["step"], {k: v for k, v in line.items() if k not in ("step", "time")}) for line in lines]
    pictures = [(int(path.stem), "picture") for path in (workdir / "samples").glob("*.png")]
    return sorted([*figures, *pictures], key=lambda entry: entry[0])


def without_times(sent):
    kept = [
        (step, what if what == "picture" else {k: v for k, v in what.items() if not k.startswith("time/")})
        for step, what in sent
    ]
    assert all("time/images_per_second" in what for _, what in sent if what != "picture")
    return kept


def test_killed_and_resumed_a_run_has_one_id_and_each_step_once(lab, fake, kill_at, tmp_path):
    config = lab.config("gan", log__tracker="wandb", checkpoint__every="3 steps", log__samples_every="2 steps")
    for step in (6, 3):  # after steps 5 and 5, from checkpoints 0 and 3: steps 4 and 5 are gone over twice
        kill_at(step)
        with pytest.raises(OSError, match="killed"):
            lab.train(config, tmp_path)
    kill_at(0)
    assert lab.train(config, tmp_path) == 0
    ((run_id, sent),) = fake.runs.items()
    assert without_times(sent) == recorded(tmp_path)
    assert [step for step, what in sent if what == "picture"] == [2, 4, 6, 8]
    assert json.loads((tmp_path / "trackers" / "wandb.jsonl").read_text().splitlines()[0])["run_id"] == run_id


def test_a_tracker_may_join_a_run_late_and_is_told_what_it_missed(lab, fake, tmp_path):
    assert lab.train(lab.config("gan", stop_after="5 steps"), tmp_path) == 0
    assert not fake.runs
    assert lab.train(lab.config("gan", log__tracker="wandb"), tmp_path) == 0
    (sent,) = fake.runs.values()
    assert without_times(sent) == recorded(tmp_path)


@pytest.mark.parametrize("moment", ["open", ("scalars", 3), ("picture", 4), "close"])
def test_a_failure_is_one_warning_and_the_next_process_makes_up_for_it(moment, lab, fake, tmp_path, said):
    fake.fails = {moment}
    assert lab.train(lab.config("gan", log__tracker="wandb", stop_after="5 steps"), tmp_path) == 0
    assert len([line for line in said if "log.tracker=wandb failed" in line]) == 1
    assert len([line for line in said if "ConnectionError: no server at" in line]) == 1
    assert [entry[0] for entry in recorded(tmp_path)] == [1, 2, 3, 4, 4, 5]
    fake.fails = set()
    assert lab.train(lab.config("gan", log__tracker="wandb"), tmp_path) == 0
    (sent,) = fake.runs.values()
    assert sorted(without_times(sent), key=lambda entry: entry[0]) == recorded(tmp_path)
    # A tracker learns of a missed picture after the figures of later steps; nothing else is out of order.
    assert [step for step, what in sent if what != "picture"] == list(range(1, 9))


def test_a_package_that_is_missing_is_one_line_before_anything_begins(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[mlflow\]", or pass --config\.log\.tracker=none$'):
        run_module.run(lab.config("gan", log__tracker="mlflow"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_note_that_a_kill_cut_short_is_read_up_to_there(tmp_path):
    path = tmp_path / "trackers" / "wandb.jsonl"
    first = Note(path)
    for kind, step in (("scalars", 7), ("picture", 8), ("scalars", 9), ("scalars", 7)):  # the last: it was not sent
        first.write(kind, step)
    with path.open("a") as file:
        file.write('{"scalars": 1')
    for _ in range(2):
        again = Note(path)
        assert (again.run_id, again.sent) == (first.run_id, {"scalars": 7, "picture": 8})
    assert len(path.read_text().splitlines()) == 1


def test_wandb_is_online_only_where_a_key_or_a_mode_says_so(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not trackers._has_wandb_key()
    (tmp_path / "netrc").write_text("machine example.org login user password secret\n")
    assert not trackers._has_wandb_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://example.org/wandb")
    assert trackers._has_wandb_key()
    monkeypatch.delenv("WANDB_BASE_URL")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert trackers._has_wandb_key()
