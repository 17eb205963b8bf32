"""Several real processes over loopback: one run, whoever dies, whoever is asked to stop."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from gormley_vision.training import checkpoints as ckpt

FLAGS = ("--config=configs/vit_mnist.py:smoke", "--config.data.source=fake", "--config.data.image_size=16")
FLAGS += ("--config.vit.patch_size=8", "--config.checkpoint.every=4 steps", "--config.checkpoint.keep_last=9")


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def digest_of(workdir):
    return ckpt.digest(workdir / "checkpoints" / "8")


@pytest.fixture(scope="module")
def launch(programs):
    """A function: run so many processes under scripts/launch.py; status and what it said."""

    def run(workdir, processes, *flags):
        words = ["scripts/launch.py", f"--processes={processes}", "--", "train.py", f"--workdir={workdir}"]
        return programs.finish(programs.start([sys.executable, *words, *FLAGS, *flags]))

    return run


@pytest.fixture(scope="module")
def of_two(launch, tmp_path_factory):
    """The folder of a run by two processes."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    status, said = launch(workdir, 2)
    assert status == 0, said
    assert "2 devices (data 2)" in said
    assert said.count("step 8/8") == 1, "one process speaks"
    return workdir


def side_by_side(programs, workdir, *flags):
    """Two processes without a parent that watches."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = [sys.executable, "train.py", f"--workdir={workdir}", f"--coordinator={address}", "--processes=2"]
    return [programs.start([*shared, f"--process={i}", *FLAGS, *flags]) for i in (0, 1)]


def processes_of(workdir, flag):
    """Process numbers of those whose command line names the run and the flag."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            if f"--workdir={workdir}" in words and flag in words:
                found.append(int(path.parent.name))
    return found


def test_two_processes_equal_one_with_two_devices(programs, of_two, tmp_path):
    alone = [sys.executable, "train.py", f"--workdir={tmp_path}", *FLAGS]
    before = programs.environment
    programs.environment = before | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    try:
        status, said = programs.finish(programs.start(alone))
    finally:
        programs.environment = before
    assert status == 0, said
    for mine, theirs in zip(metrics_of(tmp_path), metrics_of(of_two), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_signal_to_the_second_saves_both_at_one_step_and_the_rerun_ends_with_the_same_bits(
    programs, launch, of_two, tmp_path
):
    long = ("--config.duration=8 steps", "--config.log.samples_every=1 steps")
    processes = side_by_side(programs, tmp_path, *long)
    programs.wait_for_step(processes[0], tmp_path, 1)
    processes[1].send_signal(signal.SIGTERM)
    ends = [programs.finish(process) for process in processes]
    saved = ckpt.steps_of(tmp_path / "checkpoints")
    if saved[-1] < 8:  # else the signal came with the last steps, and there was nothing left to stop
        assert [status for status, _ in ends] == [143, 143], ends
    status, said = launch(tmp_path, 2, *long)
    assert status == 0, said
    assert digest_of(tmp_path) == digest_of(of_two)


def test_another_number_of_processes_goes_on_with_the_same_data(launch, of_two, tmp_path):
    status, said = launch(tmp_path, 4, "--config.stop_after=4 steps")
    assert status == 0, said
    status, said = launch(tmp_path, 1)
    assert status == 0, said
    assert "continuing after step 4" in said
    for mine, theirs in zip(metrics_of(tmp_path), metrics_of(of_two), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)


def test_where_one_is_killed_the_other_ends_within_the_heartbeat(programs, tmp_path):
    heartbeat = 5
    first, second = side_by_side(programs, tmp_path, f"--heartbeat={heartbeat}", "--config.duration=100000 steps")
    programs.wait_for_step(first, tmp_path, 2)
    second.kill()
    killed = time.monotonic()
    first.communicate(timeout=60)
    assert first.returncode
    assert time.monotonic() - killed < 3 * heartbeat
    second.communicate()


def test_the_launcher_says_who_died_in_one_line(programs, tmp_path):
    words = ["scripts/launch.py", "--processes=2", "--", "train.py", f"--workdir={tmp_path}"]
    parent = programs.start([sys.executable, *words, *FLAGS, "--config.duration=100000 steps"])
    programs.wait_for_step(parent, tmp_path, 2)
    (second,) = processes_of(tmp_path, "--process=1")
    os.kill(second, signal.SIGKILL)
    status, said = programs.finish(parent)
    assert status == 128 + 9
    assert said.splitlines()[-1] == (
        "error: process 1 of 2 was ended by SIGKILL; the same command continues after the last checkpoint"
    )
    assert "***" not in said
    assert "Traceback" not in said
    assert not processes_of(tmp_path, "--process=0")


def test_a_mistake_is_said_once(launch, tmp_path):
    status, said = launch(tmp_path, 2, "--config.data.batch_size=17")
    assert status == 2
    assert said.count("data.batch_size=17 does not divide over 2 devices") == 1
    assert "Traceback" not in said
