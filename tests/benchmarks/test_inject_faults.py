"""benchmarks/inject_faults.py breaks real runs, and a broken promise shows in the table and in the exit status."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("inject_faults")


@pytest.fixture
def docs(script, tmp_path):
    path = tmp_path / "reliability.md"
    path.write_text("before\n" + "".join(script.MARKS) + "after\n")
    return path


def run_with(script, monkeypatch, fault, docs, *words):
    """Status and rows of `main` with the one fault "bit" replaced, in a process that may not mount."""
    monkeypatch.setenv(script.PRIVATE, "")
    monkeypatch.setitem(script.FAULTS, "bit", fault)
    out = docs.with_suffix(".json")
    monkeypatch.setattr(sys, "argv", ["inject_faults.py", "--only", "bit", f"--out={out}", f"--docs={docs}", *words])
    return script.main(), json.loads(out.read_text())


def test_a_broken_promise_is_in_the_table_and_the_status(script, monkeypatch, docs):
    def lose(bench):
        outcome = script.Outcome(happened="all is well", tries=7, states_lost=1)
        outcome.expect(True, "not this")
        outcome.expect(False, f"gone: {bench.folder}/run | it was whole")
        return outcome

    status, rows = run_with(script, monkeypatch, script.Fault("a bit", "no loss", lose), docs)
    assert status == 1
    assert rows["bit"]["broken"] == ["try 7: gone: /run | it was whole"]
    lines = docs.read_text().splitlines()
    assert "| a bit | no loss | **broken** 1 times: try 7: gone: /run / it was whole | 7 | 1 |" in lines
    assert (lines[0], lines[-1]) == ("before", "after")
    assert len(lines) == len(script.FAULTS) + 6


def test_a_fault_that_fails_itself_counts_as_broken(script, monkeypatch, docs):
    status, rows = run_with(script, monkeypatch, script.Fault("a bit", "no loss", lambda bench: 1 / 0), docs)
    assert status == 1
    assert rows["bit"]["broken"] == ["the script failed: ZeroDivisionError: division by zero"]


def test_what_the_machine_cannot_do_is_not_tried_rather_than_passed(script, monkeypatch, docs):
    status, rows = run_with(script, monkeypatch, script.Fault("a bit", "no loss", None, mounts=True), docs)
    assert status == 0
    assert rows["bit"]["tries"] == 0
    assert "| a bit | no loss | not tried: needs the right to mount a file system | 0 | 0 |" in docs.read_text()


@pytest.mark.slow
def test_a_real_fault_ends_as_promised_and_other_rows_stay(script, docs):
    out = docs.with_suffix(".json")
    kept = script.dataclasses.asdict(script.Outcome(happened="kept", tries=3))
    out.write_text(json.dumps({"bit": kept}))
    words = ["benchmarks/inject_faults.py", "--only", "all_damaged", f"--out={out}", f"--docs={docs}"]
    fast = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", script.PRIVATE: ""}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=fast, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())
    assert rows["bit"] == kept
    assert (rows["all_damaged"]["tries"], rows["all_damaged"]["states_lost"]) == (2, 0)
    assert "| refused; not a byte of the folder changed but run.log | 2 | 0 |" in docs.read_text()
    assert "| kept | 3 | 0 |" in docs.read_text()
