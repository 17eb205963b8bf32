"""What a program says of an error that a person can fix, and of output that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gormley_vision.errors import reported
from gormley_vision.files import refuse_unwritable, write_atomically

ROOT = Path(__file__).parents[1]
FAULTS = ("fault_bench", "faults", "inject_faults")  # programs that break others
PROGRAM = "from gormley_vision.errors import protect_output, reported\nwith reported():\n    "


def run(program: str, shell: str = '"$@"', **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", "-c", shell, "bash", sys.executable, "-c", PROGRAM + program]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_result_that_finds_no_room_is_an_error(unbuffered):
    for program in ("print('figures')", "print('figures'); raise SystemExit(0)"):
        done = run(program, '"$@" > /dev/full', PYTHONUNBUFFERED=unbuffered)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "error: [Errno 28] No space left on device: 'standard output'; fix that, then run the same command again"
        ]


def test_what_is_printed_on_the_way_and_a_reader_that_is_gone_cost_nothing():
    done = run("protect_output(product=False); print('a step', flush=True); raise SystemExit(3)", '"$@" > /dev/full')
    assert (done.returncode, done.stderr) == (3, "")
    done = run("print('figures', flush=True); print('more')", '"$@" | true; exit ${PIPESTATUS[0]}')
    assert (done.returncode, done.stderr) == (0, "")
    done = run("import sys; print('a line', file=sys.stderr); print('figures')", '"$@" 2> /dev/full')
    assert (done.returncode, done.stdout) == (0, "figures\n")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda folder: (folder / "file" / "x").mkdir(), "file/x' (a file is where a folder should be)"),
        (lambda folder: (folder / "file").mkdir(), "file' (a file is where a folder should be)"),
        (lambda folder: (folder / "nope").open(), "nope'; fix that"),
    ],
)
def test_a_path_that_cannot_be_is_one_line(tmp_path, fault, message, capfd):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end, reported():
        fault(tmp_path)
    assert end.value.code == 2
    assert message in capfd.readouterr().err


def test_a_fault_without_a_path_is_ours():
    with pytest.raises(FileNotFoundError), reported():
        raise FileNotFoundError(2, "No such file or directory")


def test_a_folder_that_was_removed_under_us_is_told(tmp_path, monkeypatch, capfd):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit), reported():
        os.getcwd()  # noqa: PTH109
    assert capfd.readouterr().err.startswith("error: the folder you are in was removed: cd to one that exists")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*/result\.json"):
        write_atomically(tmp_path / "result.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_looking_whether_a_file_can_be_written_leaves_nothing(tmp_path):
    refuse_unwritable(tmp_path / "new" / "result.json")
    assert list((tmp_path / "new").iterdir()) == []


def test_every_program_reports_in_one_way():
    for path in (ROOT / "train.py", *(ROOT / "scripts").glob("*.py")):
        _, guard, program = path.read_text().rpartition('if __name__ == "__main__":\n')
        if guard and path.stem not in FAULTS:  # a module of programs has none
            assert program.startswith("    with reported():\n"), path
