"""scripts/compare.py: arms are the runs that differ in the seed alone, and their figures are means over it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def a_run(folder, seed, width, figures):
    folder.mkdir()
    config = {"task": "classification", "seed": seed, "vit": {"width": width, "depth": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [{"step": 2 * i, "loss": 1.0} | ({"eval/accuracy": x} if x else {}) for i, x in enumerate(figures)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def compare(*words):
    command = [sys.executable, "scripts/compare.py", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_arms_are_averaged_over_seeds(tmp_path):
    runs = [
        a_run(tmp_path / f"{w}-{s}", s, w, (0, 0.1, last)) for w, s, last in ((8, 0, 0.5), (8, 1, 0.7), (16, 0, 0.9))
    ]
    done = compare("--workdirs", *runs, f"--out={tmp_path / 'table.json'}")
    assert done.returncode == 0, done.stderr
    assert "vit.width=8: 0.6000 +- 0.1414, seeds 0.5000, 0.7000" in done.stdout
    first, second = json.loads((tmp_path / "table.json").read_text())["arms"]
    assert first["mean"] == pytest.approx(0.6)
    assert first["curves"] == {"0": [0.1, 0.5], "1": [0.1, 0.7]}
    assert first["steps"] == {"0": 4, "1": 4}
    assert second == {
        "arm": "vit.width=16",
        "mean": 0.9,
        "standard_deviation": 0.0,
        "curves": {"0": [0.1, 0.9]},
        "steps": {"0": 4},
    }
    assert done.stderr == ""


def test_runs_of_different_lengths_are_told_and_two_of_one_seed_refused(tmp_path):
    runs = [a_run(tmp_path / "0", 0, 8, (0.1, 0.5)), a_run(tmp_path / "1", 1, 8, (0.1, 0.5, 0.7))]
    done = compare("--workdirs", *runs)
    assert "all: the runs end at different steps: seed 0 at step 2, seed 1 at step 4" in done.stderr
    assert "0.6000" in done.stdout
    done = compare("--workdirs", *runs, a_run(tmp_path / "again", 1, 8, (0.9,)))
    assert done.returncode == 2
    assert f"{runs[1]} and {tmp_path / 'again'} both have seed 1" in done.stderr


def test_a_metric_that_no_step_has_is_refused(tmp_path):
    run = a_run(tmp_path / "run", 0, 8, (0.5,))
    for metric in ("eval/acuracy", "time", "step"):
        done = compare("--workdirs", run, f"--metric={metric}")
        assert done.returncode == 2
        assert f"has no {metric}: --metric is one of eval/accuracy, loss\n" in done.stderr


def test_what_is_no_run_and_where_nothing_can_be_written_is_refused_before_the_work(tmp_path):
    run = a_run(tmp_path / "run", 0, 8, (0.5,))
    (tmp_path / "file").touch()
    for words, message in (
        ([f"{tmp_path}/nope"], f"no run in {tmp_path}/nope: there is no config.json"),
        ([run, f"--out={tmp_path}"], f"{tmp_path} is a folder: name a file"),
        ([run, f"--out={tmp_path}/file/x.json"], "(a file is where a folder should be)"),
        ([run, "--out=/proc/nope/x.json"], "No such file or directory: '/proc/nope'"),
    ):
        done = compare("--workdirs", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def a_card(path, **changes):
    """Write a card; changes are {figures__NAME or PART__NAME: value}, '...' to leave it out."""
    card = {
        "figures": {"frechet_distance": 12.5, "frechet_distance_by_count": {"20": 12.5}},
        "is_fid": False,
        "extractor": {"name": "x", "sha256": "a", "preparation": "p"},
        "real": {"sha256": "b", "split": "train", "count": 9, "channels": 1},
        "fake": {"count": 20, "options": {}, "config_sha256": "c", "training_seed": 0, "step": 60},
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        where, last = (card[part], name) if name else (card, part)
        where.pop(last) if value is ... else where.update({last: value})
    path.write_text(json.dumps(card))
    return str(path)


def test_cards_of_two_seeds_are_averaged_and_what_one_lacks_is_named(tmp_path):
    first = a_card(tmp_path / "a.json", figures__nearer=0.5, figures__frechet_distance=12, figures__none=None)
    second = a_card(tmp_path / "b.json", fake__training_seed=1, fake__step=20, figures__recall=0.25, figures__none=None)
    for cards in ([first, second], [second, first]):
        done = compare("--cards", *cards, f"--out={tmp_path / 'table.json'}")
        assert done.returncode == 0, done.stderr
        assert "  frechet_distance: 12.2500 +- 0.3536\n" in done.stdout
        assert "nearer" not in done.stdout
        assert f"left out: nearer, for which there is no number in {second}\n" in done.stderr
        assert f"left out: recall, for which there is no number in {first}\n" in done.stderr
        assert f"left out: none, for which there is no number in {', '.join(cards)}\n" in done.stderr
        assert "by_count" not in done.stderr
        assert "the samples are of different steps: " in done.stderr
        assert f"60 in {first}" in done.stderr
        assert f"20 in {second}" in done.stderr
    (arm,) = json.loads((tmp_path / "table.json").read_text())["arms"]
    assert arm["steps"] == [20, 60]
    done = compare("--cards", first)
    assert "  nearer: 0.5000\n" in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_fid": True}, "not measured alike, so they cannot be compared:\n  is_fid: False in {a}, True in {b}"),
        ({"real__channels": 3}, "real.channels: 1 in {a}, 3 in {b}"),
        ({"extractor__sha256": "z", "extractor__name": "y"}, "extractor.sha256: 'a' (x) in {a}, 'z' (y) in {b}"),
        ({"is_fid": ...}, "{b} is not a card (it does not say is_fid: true or false)"),
        ({"figures__frechet_distance": "12"}, "{b} is not a card (its frechet_distance is '12', which is no number)"),
        ({"figures__frechet_distance": float("nan")}, "{b} is not a card (its frechet_distance is nan, which is no"),
        ({"figures__frechet_distance": True}, "(its frechet_distance is True, which is no number)"),
        ({"figures": {}}, "{b} is not a card (it has no figures)"),
        ({"figures": [1]}, "{b} is not a card (it has no figures)"),
        ({"real": ["x"]}, "{b} is not a card (it has no real)"),
        ({"fake": ...}, "{b} is not a card (it has no fake)"),
        ({"fake__config_sha256": ["c"]}, "{b} is not a card (its fake.config_sha256 is ['c'])"),
        ({"fake__training_seed": [1]}, "{b} is not a card (its fake.training_seed is [1])"),
        ({"fake__step": "60"}, "{b} is not a card (its fake.step is '60')"),
        ({}, "are of one arm and share a training seed"),
    ],
)
def test_cards_that_are_none_or_unlike(tmp_path, changes, message):
    cards = [a_card(tmp_path / "a.json"), a_card(tmp_path / "b.json", **changes)]
    done = compare("--cards", *cards)
    assert (done.returncode, done.stdout) == (2, "")
    assert message.format(a=cards[0], b=cards[1]) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_card_that_is_not_there(tmp_path):
    for path, what in ((tmp_path / "absent.json", "there is no such file"), (tmp_path, "it is a folder")):
        done = compare("--cards", a_card(tmp_path / "a.json"), str(path))
        assert done.returncode == 2
        assert f"{path} is not a card ({what}): pass what scripts/evaluate.py" in done.stderr


def test_several_metrics_are_several_tables(tmp_path):
    run = a_run(tmp_path / "run", 0, 8, (0.5,))
    done = compare("--workdirs", run, "--metric", "eval/accuracy", "loss", f"--out={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "out.json").read_text())["metrics"]
    assert [table["metric"] for table in tables] == ["eval/accuracy", "loss"]
    assert done.stdout.splitlines()[::2] == ["eval/accuracy", "loss"]
