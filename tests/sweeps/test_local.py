"""A sweep of real processes, killed outright and started again; and how a machine is divided."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gormley_vision.errors import UserError
from gormley_vision.sweeps import local

ROOT = Path(__file__).parents[2]
FILE = f"""
BASE = "{ROOT}/configs/vit_mnist.py:smoke"
METRIC = "loss/classifier"
HIGHER_IS_BETTER = False
FIXED = {{"duration": "20 steps", "checkpoint.every": "4 steps"}}
def sweep():
    for seed in (0, 1):
        yield {{"seed": seed}}
    yield {{"data.image_size": 28, "data.source": "npz", "data.path": "{{}}"}}
"""


def sweep(folder, **streams):
    words = ["scripts/sweep.py", f"--config={folder / 'file.py'}", f"--workdir={folder / 'runs'}"]
    alone = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}  # one device, not the tests' eight
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=alone, start_new_session=True, text=True, **streams)


def whole_checkpoints(run):
    return [path for path in (run / "checkpoints").glob("*") if path.name.isdigit()]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def children_of(process):
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split() if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_sweep_killed_with_its_runs_goes_on_and_tells_what_failed(tmp_path):
    (tmp_path / "file.py").write_text(FILE.replace("{}", str(tmp_path / "missing.npz")))
    runs = tmp_path / "runs"
    first = sweep(tmp_path)
    wait_for(lambda: whole_checkpoints(runs / "seed=1"))
    pids = [first.pid, *children_of(first)]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    first.wait()
    finished = (runs / "seed=0" / "output.log").read_text()

    done = sweep(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=240)
    assert done.returncode == 1
    assert "missing.npz" in err  # the failed one, with its own words
    assert (runs / "seed=0" / "output.log").read_text() == finished  # not begun again
    assert "continuing after step" in (runs / "seed=1" / "output.log").read_text()
    table = list(csv.DictReader((runs / "leaderboard.csv").read_text().splitlines()))
    assert sorted(row["state"] for row in table) == ["done", "done", "failed"]
    figures = [float(row["loss/classifier"]) for row in table[:2]]
    assert figures == sorted(figures)
    last = json.loads((runs / "seed=1" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {row["seed"]: row for row in table}["1"]["loss/classifier"] == str(last["loss/classifier"])
    assert f"{figures[0]:.4f}" in out
    assert "<svg" in (runs / "sweep.html").read_text()


@pytest.mark.slow
def test_sigterm_saves_the_run_under_way(tmp_path):
    text = FILE.replace("20 steps", "100000 steps").replace("4 steps", "100000 steps")
    (tmp_path / "file.py").write_text(text)
    process = sweep(tmp_path, stderr=subprocess.PIPE)
    run = tmp_path / "runs" / "seed=0"
    wait_for(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command continues" in err
    assert len(whole_checkpoints(run)) == 1
    assert not (tmp_path / "runs" / "seed=1").exists()


def test_runs_under_way_are_ended_when_the_sweep_is_refused(tmp_path, monkeypatch):
    child = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print(1, flush=True);"
    started = []

    def start(job, share):
        job.process = subprocess.Popen([sys.executable, "-c", f"{child} time.sleep(60)"], stdout=subprocess.PIPE)
        assert job.process.stdout.readline() == b"1\n"
        started.append(job.process)

    def refuse(jobs):
        raise UserError("no such metric")

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "is_done", lambda run: False)
    run = SimpleNamespace(name="run", folder=tmp_path, after=())
    with pytest.raises(UserError, match="no such metric"):
        local.launch([run], local.shares("cpu", 1), refuse)
    (process,) = started
    process.stdout.close()
    assert process.returncode == 0


def test_a_run_waits_for_the_one_that_it_starts_from(monkeypatch, tmp_path):
    names = {"short": (), "long": ("short",), "broken": (), "after": ("short", "broken"), "last": ("after",)}
    started = []

    def start(job, share):
        started.append(job.run.name)
        code = "import time; time.sleep(0.3); raise SystemExit(" + str(int(job.run.name == "broken")) + ")"
        job.process, job.state, job.share = subprocess.Popen([sys.executable, "-c", code]), "running", share
        job.began = time.monotonic()

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "is_done", lambda run: False)
    runs = [SimpleNamespace(name=name, folder=tmp_path / name, after=after) for name, after in names.items()]
    jobs = local.launch(list(reversed(runs)), local.shares("cpu", 2), lambda jobs: None)
    assert started == ["broken", "short", "long"]
    assert {job.run.name: job.state for job in jobs} == {
        "short": "done",
        "long": "done",
        "broken": "failed",
        "after": "failed",
        "last": "failed",
    }
    last = {job.run.name: job.last_line() for job in jobs}
    assert last["last"] == "not started, as what it starts from is not there: after"


def test_a_machine_is_divided_and_no_part_has_anothers_share(monkeypatch):
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    parts = local.shares("cpu", 3)
    assert [sorted(part.cores) for part in parts] == [[0, 1], [2, 3], [4, 5]]
    gpus = local.shares("gpu:0,1,2,3", 2)
    assert [part.environment["CUDA_VISIBLE_DEVICES"] for part in gpus] == ["0,1", "2,3"]
    assert [sorted(part.cores) for part in gpus] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    chips = local.shares("tpu:0,1", 2)
    assert [part.environment["TPU_VISIBLE_CHIPS"] for part in chips] == ["0", "1"]


@pytest.mark.parametrize(
    ("devices", "count", "message"),
    [("cpu", 9, "pass --jobs=8"), ("gpu", 1, "write cpu, gpu:0"), ("gpu:0", 2, "--jobs=1"), ("tpu:0,1", 1, "--jobs=2")],
)
def test_more_runs_than_devices_are_refused(monkeypatch, devices, count, message):
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    with pytest.raises(UserError, match=message):
        local.shares(devices, count)
