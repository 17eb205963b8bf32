"""Train every run of a sweep file, and report the results.

    python scripts/sweep.py --config=configs/sweeps/dcgan_rates.py [--jobs=2] [--workdir=runs/NAME]
    python scripts/sweep.py --config=FILE --launcher=skypilot --accelerators=tpu-v6e-8 --bucket=gs://NAME

The first command trains on this machine, several runs at a time. The same command continues after a kill: finished runs
are not repeated, stopped ones resume. `leaderboard.csv` and `sweep.html` in the sweep's folder are updated whenever a
run ends; `tensorboard --logdir` of it has an HParams tab. The second writes a SkyPilot managed job for each run
(docs/cloud_tpu.md), and launches nothing. --launcher=none only updates the report, for folders copied from elsewhere.
"""

import argparse
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from rich.live import Live
    from rich.table import Column, Table

    from gormley_vision.command_line import split_spec
    from gormley_vision.config import validate
    from gormley_vision.files import path_flag
    from gormley_vision.sweeps.local import Job, launch, shares
    from gormley_vision.sweeps.report import find_metric, write_report
    from gormley_vision.sweeps.runs import Run, Sweep, is_done, load_sweep
    from gormley_vision.sweeps.skypilot import write_jobs
    from gormley_vision.training.progress import make_console

_LOG_EVERY = 60.0  # seconds, without a terminal


def main() -> int:
    """Read the sweep, check it, launch its runs, report."""
    options = parse()
    path, arg = split_spec(options.config)
    sweep = load_sweep(path, options.workdir or Path("runs", f"{path.stem}_{arg}" if arg else path.stem), arg)
    if options.launcher == "none":
        write_report(sweep, ["done" if is_done(run) else "waiting" for run in sweep.runs])
        print(f"wrote {sweep.folder / 'leaderboard.csv'} and {sweep.folder / 'sweep.html'}")
        return 0
    check_all(sweep.runs)
    if options.launcher == "skypilot":
        return write_skypilot(sweep, options)
    jobs = launch(sweep.runs, shares(options.devices, options.jobs), Watch(sweep))
    return summary(sweep, jobs)


def parse() -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a sweep file: configs/sweeps/NAME.py, or NAME.py:smoke")
    parser.add_argument("--workdir", type=path_flag, help="folder that contains the runs' folders (default: runs/NAME)")
    parser.add_argument(
        "--launcher", default="local", choices=("local", "skypilot", "none"), help="where runs are trained"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time; they share the cores or devices")
    parser.add_argument("--devices", default="cpu", help="cpu, or gpu:0,1,2,3 or tpu:0,1,2,3 by number")
    parser.add_argument("--accelerators", help="skypilot: one of 'sky show-gpus', such as tpu-v6e-8 or H100:8")
    parser.add_argument("--bucket", help="skypilot: gs://NAME or s3://NAME for the runs' folders")
    parser.add_argument(
        "--mount", action="append", default=[], help="skypilot: a bucket to read data from, as in /data=gs://NAME"
    )
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs={options.jobs}: at least 1")
    if options.launcher == "skypilot" and not (options.accelerators and "://" in (options.bucket or "")):
        parser.error("--launcher=skypilot needs --accelerators (such as tpu-v6e-8) and --bucket=gs://NAME")
    return options


def check_all(runs: tuple[Run, ...]) -> None:
    """Check all configs now, rather than hours later when a run starts.

    Raises:
        UserError: a config contradicts itself. Names its run.
    """
    for run in runs:
        try:
            validate(run.config)
        except UserError as error:
            raise UserError(f"the run {run.name}: {error}") from error


def write_skypilot(sweep: Sweep, options: argparse.Namespace) -> int:
    """Write the files, and print what to type."""
    mounts = dict(mount.split("=", 1) for mount in options.mount)
    folder = sweep.folder / "skypilot"
    paths = write_jobs(sweep, folder, accelerators=options.accelerators, bucket=options.bucket, mounts=mounts)
    print(f"wrote {len(paths)} managed jobs; launch them from the repository's root:")
    for path in paths:
        print(f"  sky jobs launch -y --detach-run '{path}'")
    return 0


class Watch:
    """Shows a live table on a terminal, else a line per change and per minute. Updates the report as runs end."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.console = make_console()
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.states: list[str] = []
        self.last_logged = 0.0
        self.found = False  # the sweep's metric: a misspelled one must not waste a sweep

    def __call__(self, jobs: list[Job]) -> None:
        """Update; called about twice a second."""
        states = [job.state for job in jobs]
        self.found = self.found or find_metric(self.sweep, states)
        if [state in ("done", "failed") for state in states] != [old in ("done", "failed") for old in self.states]:
            write_report(self.sweep, states)
        if self.live is not None:
            self.live.start()
            self.live.update(table(jobs), refresh=True)
            if not any(job.process for job in jobs):
                self.live.stop()
        else:
            changed = [job for job, old in zip(jobs, self.states or [""] * len(jobs), strict=True) if job.state != old]
            for job in changed:
                self.console.print(f"{job.state}: {job.run.name}", highlight=False, soft_wrap=True)
            if changed or time.monotonic() - self.last_logged > _LOG_EVERY:
                self.console.print(progress(jobs), highlight=False, soft_wrap=True)
                self.last_logged = time.monotonic()
        self.states = states


def table(jobs: list[Job]) -> Table:
    """Return a table with a line for each run and its last output; for a step only its number, not its metrics."""
    grid = Table(Column("run", overflow="fold"), "state", Column("last line", overflow="fold"), caption=progress(jobs))
    for job in jobs:
        line = job.last_line() if job.state in ("running", "failed") else ""
        step = re.search(r"step \d+/\d+.*? left", line)
        grid.add_row(job.run.name, job.state, step[0] if step else line)
    return grid


def progress(jobs: list[Job]) -> str:
    """Return '5 done, 2 running, 5 waiting; about 12 min left', by the mean time of the runs done here."""
    counts = Counter(job.state for job in jobs)
    text = ", ".join(
        f"{counts[state]} {state}" for state in ("done", "failed", "running", "elsewhere") if counts[state]
    )
    text += f"{', ' if text else ''}{counts['waiting']} waiting" if counts["waiting"] else ""
    ended = [job.seconds for job in jobs if job.state == "done" and job.seconds]
    running = [time.monotonic() - job.began for job in jobs if job.process]
    if ended and running:
        mean = sum(ended) / len(ended)
        left = counts["waiting"] * mean + sum(max(0.0, mean - seconds) for seconds in running)
        text += f"; about {left / len(running) / 60:.0f} min left"
    return text


def summary(sweep: Sweep, jobs: list[Job]) -> int:
    """Print the best and the failed runs, and return the exit status."""
    rows = write_report(sweep, [job.state for job in jobs])
    for row in rows[:5]:
        if row.final:
            print(f"{sweep.metric} {row.final[sweep.metric]:.4f}  {row.name}")
    for job in jobs:
        if job.state == "failed":
            where = "" if job.reason else f" ({job.output})"
            print(f"failed: {job.run.name}: {job.last_line()}{where}", file=sys.stderr)
    print(f"{sweep.folder / 'sweep.html'}, {sweep.folder / 'leaderboard.csv'}")
    states = {job.state for job in jobs}
    if "stopped" in states or "waiting" in states:
        print("stopped; the same command continues", file=sys.stderr)
        return 128 + signal.SIGTERM
    return 1 if "failed" in states else 0


if __name__ == "__main__":
    with reported():
        sys.exit(main())
