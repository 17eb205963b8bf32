"""Start several processes of one run on this machine, with one message if one of them dies.

    python scripts/launch.py --processes=2 -- train.py --config=configs/vit_mnist.py

Each process gets its number and the address of the first. The first one's output is shown; that of another is shown if
it fails. SIGTERM or Ctrl-C is passed to the first, and all save at the same step. On a cluster, let its own launcher
start `train.py` on each host (docs/scaling.md), or this script with --processes=1, for the message.
"""

import argparse
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TextIO

from gormley_vision.errors import UserError, reported
from gormley_vision.signals import handled

# Matches the runtime's own lines, with C++ stack traces: the message below replaces them.
_RUNTIME = re.compile(r"[EFIW]\d{4} \d\d:|\*\*\*|\s+@ |PC: @|\[Gloo\]|Fatal Python error|Aborted")
# Seconds from the first sign of a failure until its cause is looked for: the system closes a killed process's
# connections, and others fail because of that, before it reports that the process has ended.
_SETTLE = 1.0
_INTERRUPTED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


def main() -> int:
    """Start the processes, show their output, watch them, report failures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--processes", required=True, type=int, help="number of processes")
    parser.add_argument("command", nargs="+", help="after --: train.py and its flags")
    options, others = parser.parse_known_args()
    if options.processes < 1:
        parser.error(f"--processes={options.processes}: at least 1")
    refuse_other_forms(options.processes, options.command, others)
    with tempfile.TemporaryDirectory() as folder:
        return watch(*start(options.command, options.processes, Path(folder)))


def refuse_other_forms(processes: int, command: list[str], others: list[str]) -> None:
    """Refuse a command that is not after --, or starts with python, and show how to write it.

    Raises:
        UserError: the command has another form.
    """
    python = re.fullmatch(r"python[0-9.]*", Path(command[0]).name)
    words = [*command[1 if python else 0 :], *others]
    if python or others:
        what = f"{command[0]} is not part of the command" if python else "the command and its flags come after --"
        raise UserError(f"{what}: python scripts/launch.py --processes={processes} -- {shlex.join(words)}")
    if not Path(command[0]).is_file():
        raise UserError(
            f"{command[0]}: no such file in the current folder, {Path.cwd()}; write -- train.py --config=FILE"
        )


def start(command: list[str], count: int, folder: Path) -> tuple[list[subprocess.Popen], list[Path]]:
    """Start the processes. Returns them, and the files of their output.

    Each has its own session: a terminal's Ctrl-C must not reach all of them.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    outputs = [folder / f"{i}.log" for i in range(count)]
    processes = []
    for i, output in enumerate(outputs):
        with output.open("wb") as file:
            flags = [f"--coordinator={address}", f"--processes={count}", f"--process={i}"] if count > 1 else []
            words = [sys.executable, *command, *flags]
            processes.append(subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True))
    return processes, outputs


def watch(processes: list[subprocess.Popen], outputs: list[Path]) -> int:
    """Wait until all have ended, or one has failed and the others are killed. Returns the first nonzero status."""
    seen: set[str] = set()
    with handled(lambda number, _: processes[0].send_signal(number)), outputs[0].open(errors="replace") as shown:
        while True:
            # Before checking for failures: the first one's lines about a failure come after it.
            lines = new_lines(shown)
            ended = all(process.poll() is not None for process in processes)
            if first_to_fail(processes) is not None or any(line.startswith("Traceback") for line in lines):
                time.sleep(_SETTLE)
            failed = first_to_fail(processes)
            if not failed:  # after another's failure the first only reports how it noticed
                seen |= show(lines)
            if failed is not None or ended:
                break
            time.sleep(0.05)
        if not failed:
            show(new_lines(shown))
    if failed is None:
        return next((process.returncode for process in processes if process.returncode), 0)
    code = processes[failed].returncode
    for process in processes:
        process.kill()  # without the failed one they can only wait
        process.wait()
    if failed:
        with outputs[failed].open(errors="replace") as shown:
            show(new_lines(shown), but=seen)  # all may report the same mistake
    if code == 2:  # a mistake of the user, which was just shown
        return code
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    if code == -signal.SIGABRT:
        how += " (the runtime aborts if another process died or stopped responding)"
    which = f"process {failed} of {len(processes)}" if len(processes) > 1 else "the process"
    print(f"error: {which} {how}; the same command continues after the last checkpoint", file=sys.stderr)
    return code if code > 0 else 128 - code


def first_to_fail(processes: list[subprocess.Popen]) -> int | None:
    """Return the process that failed, if any: first a killed one, then one with an error, then an aborted one."""
    codes = {i: code for i, process in enumerate(processes) if (code := process.poll()) and code not in _INTERRUPTED}
    ranks = {i: (code == -signal.SIGABRT, code > 0, code != 2) for i, code in codes.items()}
    return min(codes, key=lambda i: ranks[i], default=None)


def new_lines(output: TextIO) -> list[str]:
    """Return the new complete lines."""
    lines, end = [], output.tell()
    while (line := output.readline()).endswith("\n"):
        lines.append(line)
        end = output.tell()
    output.seek(end)
    return lines


def show(lines: Iterable[str], but: Collection[str] = ()) -> set[str]:
    """Print these lines, except the runtime's own and those in `but`. Returns the printed ones."""
    shown = [line for line in lines if not _RUNTIME.match(line) and line not in but]
    sys.stderr.write("".join(shown))
    return set(shown)


if __name__ == "__main__":
    with reported():
        sys.exit(main())
