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
