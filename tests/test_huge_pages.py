"""A program restarts once for huge pages, where that helps, as the same process with the same command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os, sys
from pathlib import Path
from gormley_vision.huge_pages import restart_with_huge_pages
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.optimize, flush=True)
if "traced" in sys.argv:
    sys.settrace(lambda *_: None)
restart_with_huge_pages(Path(sys.argv[1]))
"""
glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"),
    reason="glibc only",
)


def lines(tmp_path, mode, *words, **environment):
    (tmp_path / "enabled").write_text(mode)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-O", str(tmp_path / "program.py"), str(tmp_path / "enabled"), *words]
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | environment
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return [line.split(" ", 2) for line in done.stdout.splitlines()]


@glibc
def test_where_huge_pages_are_on_request_the_same_command_runs_again_as_the_same_process(tmp_path):
    first, second = lines(tmp_path, "always [madvise] never\n", "a b", "--x=*")
    assert (first[1], second[1]) == ("None", "glibc.malloc.hugetlb=1")
    assert first[0] == second[0]
    assert first[2] == second[2]
    assert first[2].endswith("'a b', '--x=*'] 1")


@glibc
def test_other_tunables_stay(tmp_path):
    given = "glibc.malloc.arena_max=2"
    assert lines(tmp_path, "[madvise]", GLIBC_TUNABLES=given)[1][1] == f"{given}:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("mode", "words", "environment"),
    [
        ("[always] madvise never", (), {}),
        ("always madvise [never]", (), {}),
        ("always [madvise] never", ("traced",), {}),
        ("always [madvise] never", (), {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}),
    ],
)
def test_elsewhere_nothing_happens(tmp_path, mode, words, environment):
    assert len(lines(tmp_path, mode, *words, **environment)) == 1
