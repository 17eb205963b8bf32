"""Break real runs on purpose; write what is promised, what happened and what was lost to docs/reliability.md.

    python benchmarks/inject_faults.py [--kills=100] [--only NAME ...] [--seed=0] [--out=FILE] [--docs=FILE]

Runs are `train.py` processes on small generated data, saving after each step; the end of each (train state, metrics,
sample grids) is compared with an undisturbed run. A broken promise is shown in the table, and the exit status is 1.
With --only, the rows of the other faults are unchanged.
"""

import argparse
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import faults
from fault_bench import Bench, Outcome, make_data

from gormley_vision.files import path_flag, read_json, write_atomically, write_json

MARKS = ("<!-- table: written by benchmarks/inject_faults.py -->\n", "<!-- end of table -->\n")
PRIVATE = "GORMLEY_VISION_MAY_MOUNT"  # set if this process has its own mount namespace


class Fault(NamedTuple):
    """A row of the table."""

    what: str
    promised: str
    inject: Callable[[Bench], Outcome]
    mounts: bool = False


BACK = "named in a warning; the run continues from the checkpoint before, to the same bits"
FAULTS = {
    "kill": Fault("kill -9 at random moments of a run", "no complete checkpoint is lost; the same end", faults.kill),
    "full": Fault(
        "disk full", "one line, status 2; checkpoints stay complete; with space, the same end", faults.full_disk, True
    ),
    "read_only": Fault("read-only folder", "one line that names it, status 2, within seconds", faults.read_only, True),
    "truncated": Fault(
        "a file of the newest checkpoint cut short", BACK, lambda bench: faults.damaged(bench, 10, faults.truncate)
    ),
    "bit": Fault(
        "one bit of the newest checkpoint flipped", BACK, lambda bench: faults.damaged(bench, 20, faults.flip_bit)
    ),
    "all_damaged": Fault("every checkpoint damaged", "refused; nothing is overwritten", faults.all_damaged),
    "clock": Fault("clock set back between start and resume", "the same end", faults.clock),
    "two_runs": Fault(
        "two runs started on one folder", "the second is refused, the first undisturbed", faults.two_runs
    ),
    "data": Fault("data changed between start and resume", "refused, the file named", faults.changed_data),
    "source": Fault(
        "data source fails at the start or during training",
        "one line that names the file, status 2; repaired, the same end",
        faults.failing_source,
    ),
}


def main() -> int:
    """Inject the faults, compare with the promises, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="number of kills")
    parser.add_argument(
        "--only", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="NAME", help="only these faults"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random times, files and bits")
    parser.add_argument("--out", type=path_flag, default=Path("results/faults.json"), help="JSON file of results")
    parser.add_argument("--docs", type=path_flag, default=Path("docs/reliability.md"), help="document with the table")
    options = parser.parse_args()
    if PRIVATE not in os.environ:
        mount_in_private()
    rows = read_json(options.out) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder))
        bench = Bench(Path(folder), options.kills, random.Random())
        for name in options.only:
            bench.draw.seed(f"{options.seed} {name}")
            began = time.monotonic()
            outcome = tried(FAULTS[name], bench)
            row = dataclasses.asdict(outcome) | {"seed": options.seed, "seconds": round(time.monotonic() - began)}
            rows[name] = row | {"broken": [line.replace(folder, "") for line in outcome.broken]}
            print(f"{name} ({row['seconds']} s): {summary(rows[name])}", flush=True)
            write_json(options.out, rows)
            write_table(options.docs, rows)
    return int(any(rows[name]["broken"] for name in options.only))


def mount_in_private() -> None:
    """Restart this script in its own mount namespace, if the system allows it: its mounts end with it."""
    ways = [["unshare", flags] for flags in ("-m", "-rm")] if shutil.which("unshare") else []
    for way in ways:
        mount = [*way, "mount", "-t", "tmpfs", "x", "/mnt"]
        if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.execvpe("unshare", [*way, sys.executable, *sys.argv], os.environ | {PRIVATE: "yes"})
    os.environ[PRIVATE] = ""


def tried(fault: Fault, bench: Bench) -> Outcome:
    """Return the outcome of a fault; an error of this script counts as one, too."""
    if fault.mounts and not os.environ[PRIVATE]:
        return Outcome(not_tried="needs the right to mount a file system")
    try:
        return fault.inject(bench)
    except Exception as error:
        return Outcome(tries=1, broken=[f"the script failed: {type(error).__name__}: {error}"])


def summary(row: Mapping[str, Any]) -> str:
    """Return what happened in one line: broken promises first."""
    if row["not_tried"]:
        return f"not tried: {row['not_tried']}"
    if row["broken"]:
        return f"**broken** {len(row['broken'])} times: {' '.join(row['broken'][0].split())}"
    return row["happened"]


def write_table(docs: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the table between the marks of a document."""
    lines = ["| fault | promised | what happened | runs tried | states lost |", "| --- | --- | --- | --- | --- |"]
    for name, fault in FAULTS.items():
        row = rows.get(name, dataclasses.asdict(Outcome(not_tried="not asked for")))
        cells = (fault.what, fault.promised, summary(row).replace("|", "/"), row["tries"], row["states_lost"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    before, begin, rest = docs.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    write_atomically(docs, "".join([before, begin, *(f"{line}\n" for line in lines), end, after]).encode())


if __name__ == "__main__":
    sys.exit(main())
