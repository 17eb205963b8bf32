"""Exact resume: stopped or killed at random moments, a run ends with the same bits; with real processes, slow."""

import collections
import json
import random
import signal
import struct
import time

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training import loop
from gormley_vision.training.board import Board

STEPS = 30
# Two minibatches and flips: a step draws from every random stream there is.
RUN = {
    "duration": f"{STEPS} steps",
    "gan__discriminator_steps": 2,
    "data__flip": "true",
    "log__samples_every": "10 steps",
}
# A checkpoint at each step: one is being written at nearly any moment.
OFTEN = RUN | {"checkpoint__every": "1 steps"}


@pytest.fixture(scope="module")
def reference(programs, tmp_path_factory):
    """The run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    status, errors = programs.train(workdir, **RUN)
    assert status == 0, errors
    return workdir


@pytest.fixture(scope="module")
def interrupted(programs, tmp_path_factory):
    """(folder, [(status, step reached, stderr)]): SIGTERM, then SIGINT, then to the end."""
    workdir = tmp_path_factory.mktemp("interrupted") / "run"
    history = []
    for number, step in ((signal.SIGTERM, 4), (signal.SIGINT, 12), (0, STEPS)):
        process = programs.start(programs.command(workdir, **OFTEN))
        programs.wait_for_step(process, workdir, step)
        if number:
            process.send_signal(number)
        status, errors = programs.finish(process)
        history.append((status, ckpt.steps_of(workdir / "checkpoints")[-1], errors))
    return workdir, history


def test_signals_and_an_error_between_checkpoints_leave_no_trace_in_the_end(
    lab, finished, tmp_path, end_of, monkeypatch, said
):
    """In this process: each comes while a step's images are placed."""
    task, reference = finished
    config, put = lab.config(task), loop.put_global
    step, happens = 0, {}

    def placed(*batch):
        nonlocal step
        step += 1
        if step in happens:
            happens[step]()
        return put(*batch)

    def fail():
        raise OSError("gone")

    monkeypatch.setattr(loop, "put_global", placed)
    ends = []
    for at, event in (
        (2, lambda: signal.raise_signal(signal.SIGTERM)),
        (4, lambda: signal.raise_signal(signal.SIGINT)),
        (8, fail),
    ):
        happens = {at: event}
        step = max(ckpt.steps_of(tmp_path / "checkpoints"), default=0)
        try:
            ends.append(lab.train(config, tmp_path))
        except OSError:
            ends.append("gone")
    assert ends == [signal.SIGTERM, signal.SIGINT, "gone"]
    assert [line for line in said if "the same command continues" in line] == [
        "saved at step 2; the same command continues",
        "saved at step 4; the same command continues",
    ]
    happens = {}
    assert lab.train(config, tmp_path) == 0
    assert [line.split(" of ")[0] for line in said if "continuing" in line] == [
        f"continuing after step {step}" for step in (2, 4, 6)
    ]
    assert end_of(tmp_path) == end_of(reference)
    assert check_tensorboard(tmp_path) == [1, 3, 5, 7]


@pytest.mark.slow
def test_sigterm_and_sigint_save_the_step_reached(interrupted):
    _, history = interrupted
    (term, first, term_says), (interrupt, second, interrupt_says), (end, last, _) = history
    assert (term, interrupt, end) == (143, 130, 0)
    assert 4 <= first < 12 <= second < STEPS == last
    for says in (term_says, interrupt_says):
        assert "the same command continues" in says
        assert "Traceback" not in says
    assert f"continuing after step {first} of {STEPS}" in interrupt_says


@pytest.mark.slow
def test_run_stopped_by_signals_ends_as_if_undisturbed(interrupted, reference, end_of):
    assert end_of(interrupted[0]) == end_of(reference)
    assert [line["step"] for line in end_of(reference)["metrics"]] == list(range(1, STEPS + 1))
    assert sorted(end_of(reference)["samples"]) == [f"{step:08d}.png" for step in range(10, STEPS + 1, 10)]


@pytest.mark.slow
def test_digest_script_prints_the_same_for_both(interrupted, reference, programs):
    first, second = (programs.script("digest", f"--workdir={path}") for path in (reference, interrupted[0]))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    digest, step = first.stdout.split("  ")
    assert first.stdout == second.stdout
    assert (len(digest), step) == (64, f"step {STEPS}\n")


@pytest.mark.slow
def test_finished_run_says_so(reference, programs, end_of):
    before = end_of(reference)
    status, errors = programs.train(reference, **RUN)
    assert status == 0
    assert f"finished at step {STEPS}" in errors
    assert end_of(reference) == before


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_as_if_undisturbed(programs, reference, tmp_path, end_of):
    draw, workdir, died_writing = random.Random(20), tmp_path / "run", 0
    for step in (1, 8, 15):
        process = programs.start(programs.command(workdir, **OFTEN))
        programs.wait_for_step(process, workdir, step)
        time.sleep(draw.uniform(0, 0.2))
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        assert programs.finish(process)[0] == -signal.SIGKILL
        died_writing += any((workdir / "checkpoints").glob("*.partial"))
        newest = ckpt.newest_complete(workdir / "checkpoints")
        assert newest == max(ckpt.steps_of(workdir / "checkpoints"), default=None), "a bare number is complete"
    assert died_writing, "no kill met a checkpoint being written: the test has lost its point"
    status, errors = programs.train(workdir, **OFTEN)
    assert status == 0, errors
    assert end_of(workdir) == end_of(reference)
    assert not list((workdir / "checkpoints").glob("*.partial"))
    assert check_tensorboard(workdir)[0] == 1


def read_events(path):
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def check_tensorboard(workdir):
    """Every step of metrics.jsonl once, after TensorBoard's own purge; returns the steps at which files start."""
    shown = collections.Counter()
    starts = []
    files = sorted((workdir / "tensorboard").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for file in files:
        for event in read_events(file):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                starts.append(event.step)
                for tag, step in list(shown):  # as TensorBoard does: what is orphaned is dropped
                    if step >= event.step:
                        del shown[tag, step]
            shown.update((value.tag, event.step) for value in event.summary.value)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    wanted = [(tag, line["step"]) for line in lines for tag in line if tag not in ("step", "time")]
    wanted += [("samples", int(path.stem)) for path in (workdir / "samples").iterdir()]
    assert shown == collections.Counter(wanted)
    return starts


@pytest.mark.slow
def test_tensorboard_shows_each_step_once_after_resumes(interrupted):
    workdir, history = interrupted
    assert check_tensorboard(workdir) == [1, history[0][1] + 1, history[1][1] + 1]


def test_tensorboard_reads_files_in_order_though_the_clock_was_set_back(tmp_path, monkeypatch):
    for step, clock in ((0, 2e9), (8, 1e9)):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        Board(tmp_path, step).close()
    starts = [read_events(path)[1].step for path in sorted(tmp_path.iterdir())]  # as TensorBoard does: by name
    assert starts == [1, 9]
