"""Runs a sweep on this machine, several runs at a time, each on its share of the cores, GPUs or TPU chips."""

import contextlib
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gormley_vision.errors import UserError
from gormley_vision.signals import handled
from gormley_vision.sweeps.runs import Run, is_done

TRAIN = Path(__file__).parents[2] / "train.py"
# So that a process sees only its chip, and does not wait for a pod.
_ONE_CHIP = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of the machine that one run uses."""

    cores: frozenset[int]
    environment: Mapping[str, str]


def shares(devices: str, count: int) -> list[Share]:
    """Divide the machine into `count` equal parts: 'cpu', or 'gpu:0,1,2,3' and 'tpu:0,1,2,3' with device numbers.

    Raises:
        UserError: there are fewer devices than parts.
    """
    kind, _, numbers = devices.partition(":")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if kind not in ("cpu", "gpu", "tpu") or (kind == "cpu") == bool(numbers):
        raise UserError(f"--devices={devices}: write cpu, gpu:0,1,2,3 or tpu:0,1,2,3")
    chips = numbers.split(",") if numbers else [str(core) for core in cores]
    if count > len(chips):
        raise UserError(f"--jobs={count}, but there are {len(chips)} {kind}s to divide: pass --jobs={len(chips)}")
    if kind == "tpu" and count != len(chips):
        raise UserError(f"--jobs={count}: each run has one TPU chip here; pass --jobs={len(chips)}")
    parts = []
    for i in range(count):
        own = ",".join(chips[i * (len(chips) // count) : (i + 1) * (len(chips) // count)])
        environment = {"cpu": {}, "gpu": {"CUDA_VISIBLE_DEVICES": own}, "tpu": {"TPU_VISIBLE_CHIPS": own} | _ONE_CHIP}
        each = max(1, len(cores) // count)
        first = i * each % len(cores)
        parts.append(Share(frozenset(cores[first : first + each]), environment[kind]))
    return parts


@dataclasses.dataclass
class Job:
    """A run, and its state in this process."""

    run: Run
    state: str = "waiting"  # or running, elsewhere (another process has locked its folder), done, failed, stopped
    process: subprocess.Popen | None = None
    share: Share | None = None
    began: float = 0.0  # seconds of time.monotonic
    seconds: float = 0.0
    reason: str = ""  # why it was not started

    @property
    def output(self) -> Path:
        """The file with train.py's output."""
        return self.run.folder / "output.log"

    def last_line(self) -> str:
        """Return the last line of its output, or why it has none."""
        if self.reason:
            return self.reason
        lines = self.output.read_text(errors="replace").splitlines() if self.output.exists() else []
        return lines[-1] if lines else ""


def launch(runs: Sequence[Run], parts: Sequence[Share], watch: Callable[[list[Job]], None]) -> list[Job]:
    """Train the runs that are not done, one on each part at a time. Calls `watch` about once a second.

    SIGTERM and Ctrl-C are passed on: all runs save, and the same command continues them. A run whose folder another
    process has locked (the runs of a killed sweep continue) keeps a part busy until it ends.
    """
    jobs = [Job(run, "done" if is_done(run) else "waiting") for run in runs]
    passed_on = 0
    with _received() as signals, _saved_if_this_fails(jobs):
        while True:
            for job in jobs:
                _update(job)
            if not signals:
                _fill(jobs, parts)
            watch(jobs)
            busy = [job.process for job in jobs if job.process is not None]
            if not busy and (signals or not any(job.state in ("waiting", "elsewhere") for job in jobs)):
                return jobs
            while passed_on < len(signals):  # all of them: a second signal ends a run that is saving
                for process in busy:
                    process.send_signal(signal.SIGTERM)
                passed_on += 1
            time.sleep(0.5)


@contextlib.contextmanager
def _received() -> Iterator[list[int]]:
    numbers: list[int] = []
    with handled(lambda number, _: None if numbers and number == signal.SIGHUP else numbers.append(number)):
        yield numbers


@contextlib.contextmanager
def _saved_if_this_fails(jobs: list[Job]) -> Iterator[None]:
    """On an error in the block, let all runs save and end, so that none continues unwatched."""
    try:
        yield
    except BaseException:
        busy = [job.process for job in jobs if job.process is not None]
        for process in busy:
            process.send_signal(signal.SIGTERM)
        for process in busy:
            process.wait()
        raise


def _update(job: Job) -> None:
    """Update the job's state."""
    if job.state == "elsewhere" and not _locked(job.run.folder):
        job.state = "done" if is_done(job.run) else "waiting"
    if job.process is None or (status := job.process.poll()) is None:
        return
    job.seconds = time.monotonic() - job.began
    stopped = status in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    job.state = "stopped" if stopped else "failed" if status else "done"
    job.process = job.share = None


def _fill(jobs: list[Job], parts: Sequence[Share]) -> None:
    """Start the next runs on free parts."""
    free = [part for part in parts if all(part is not job.share for job in jobs)]
    free = free[: max(0, len(free) - sum(job.state == "elsewhere" for job in jobs))]
    states = {job.run.name: job.state for job in jobs}
    for job in jobs:
        before = {name: states[name] for name in job.run.after}
        missing = [name for name, state in before.items() if state in ("failed", "stopped")]
        if job.state == "waiting" and missing:
            job.state = before[missing[0]]
            job.reason = f"not started, as what it starts from is not there: {', '.join(missing)}"
        if job.state != "waiting" or not free or any(state != "done" for state in before.values()):
            continue
        if _locked(job.run.folder):
            job.state, free = "elsewhere", free[:-1]
            continue
        _start(job, free.pop(0))


def _start(job: Job, share: Share) -> None:
    job.run.folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, str(TRAIN), *job.run.flags, f"--workdir={job.run.folder}"]
    all_cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with job.output.open("ab") as output:
        if all_cores is not None:
            os.sched_setaffinity(0, share.cores)  # inherited; Popen's preexec_fn is unsafe with threads
        try:
            job.process = subprocess.Popen(
                words,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **share.environment},
                start_new_session=True,  # a terminal's Ctrl-C reaches only this process, which passes it on
            )
        finally:
            if all_cores is not None:
                os.sched_setaffinity(0, all_cores)
    job.state, job.share, job.began = "running", share, time.monotonic()


def _locked(folder: Path) -> bool:
    """Return whether a process has locked the run's folder (run.locked)."""
    if not (folder / ".lock").exists():
        return False
    with (folder / ".lock").open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
