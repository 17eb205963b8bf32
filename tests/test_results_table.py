"""The README's table of results is what its script writes, and what it says of a result is true of the repository."""

import runpy
import subprocess
from pathlib import Path

import pytest

from gormley_vision.files import read_json

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "results_table.py"))


def test_the_readme_has_the_table_that_the_script_writes():
    begin, end = SCRIPT["MARKS"]
    written = (ROOT / "README.md").read_text().partition(begin)[2].partition(end)[0]
    assert written == SCRIPT["table"](), "run python scripts/results_table.py"


def test_every_result_is_in_the_table_and_has_its_provenance():
    names = {path.stem for path in (ROOT / "results").iterdir()} - {"provenance"}
    assert names == SCRIPT["FINDINGS"].keys() == read_json(ROOT / "results" / "provenance.json").keys()


def test_figures_are_those_of_the_files():
    """By hand from the files: three seeds of axial RoPE, the median of 25 pairs of steps."""
    arms = read_json(ROOT / "results" / "vit_fashion_mnist.json")["arms"]
    best = max(arms, key=lambda arm: arm["mean"])
    found = SCRIPT["FINDINGS"]["vit_fashion_mnist"](read_json(ROOT / "results" / "vit_fashion_mnist.json"))
    assert f"{100 * best['mean']:.1f}" in found.figure
    assert found.seeds == "0, 1, 2"


@pytest.mark.parametrize("name", [name for name, told in read_json(ROOT / "results/provenance.json").items() if told])
def test_what_was_said_elsewhere_is_said_there(name):
    told = read_json(ROOT / "results" / "provenance.json")[name]
    commit = told.get("brought_by", "HEAD")
    known = subprocess.run(["git", "log", "-1", "--format=%H", commit], cwd=ROOT, capture_output=True, text=True)
    if known.returncode == 0 and commit != "HEAD":  # a copy of the files without their history knows no commit
        assert known.stdout.strip() == commit
    said = " ".join(" ".join((ROOT / page).read_text().split()) for page in told.get("said_in", []))
    for words in [*told.get("commands", []), *([told["hardware"]] if "hardware" in told else [])]:
        assert words in said
