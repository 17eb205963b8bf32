"""Who may import whom (docs/architecture.md), read from the source: no upward arrow, no cycle, nothing heavy early."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gormley_vision"
# Each room may import those on its line, and itself.
ALLOWED = {
    "errors": {"signals"},
    "signals": set(),
    "libtpu": set(),
    "huge_pages": set(),
    "user_code": {"errors"},
    "files": {"errors"},
    "logs": set(),
    "randomness": {"errors"},
    "durations": {"errors"},
    "schedules": {"durations", "errors", "fields"},
    "axes": set(),
    "finiteness": set(),
    "mesh_rules": {"errors"},
    "fields": set(),
    "health": set(),
    "task_modules": {"tasks", "fields", "errors", "user_code", "data"},
    "config": {"task_modules", "fields", "mesh_rules", "durations", "errors", "files"},
    "command_line": {"config", "fields", "errors", "files", "user_code"},
    "layers": set(),
    "losses": set(),
    "theory": {"losses"},
    "augmentation": {"data"},
    "metrics": set(),
    "data": {"errors", "files", "user_code"},
    "models": {"layers", "errors"},
    "samples": {"errors", "files"},
    "tiling": {"errors"},
    "tasks": {
        "axes",
        "finiteness",
        "health",
        "augmentation",
        "data",
        "models",
        "layers",
        "losses",
        "metrics",
        "samples",
        "tiling",
        "fields",
        "files",
        "durations",
        "schedules",
        "randomness",
        "errors",
    },
    "training": {
        "axes",
        "finiteness",
        "health",
        "mesh_rules",
        "data",
        "config",
        "durations",
        "files",
        "errors",
        "randomness",
        "samples",
        "signals",
    },
    "experiment": {"training", "task_modules", "data", "config", "durations", "errors"},
    "sampling": {"task_modules", "experiment", "training", "config", "data", "errors", "files", "samples"},
    "sampling_flags": {"task_modules", "config", "fields"},
    "extractors": {"sampling", "training", "models", "errors", "files"},
    "sample_evaluation": {
        "extractors",
        "experiment",
        "training",
        "metrics",
        "data",
        "config",
        "durations",
        "files",
        "randomness",
        "samples",
        "errors",
    },
    "figures": {"samples"},
    "inspection": {"sampling", "models", "layers", "errors"},
    "run": {"sample_evaluation", "experiment", "training", "config", "errors", "files", "logs"},
    "planning": {"run", "task_modules", "mesh_rules", "experiment", "training", "data", "config", "errors", "libtpu"},
    "sweeps": {"command_line", "user_code", "config", "durations", "files", "errors", "signals"},
    "__init__": {"sampling", "libtpu"},
}


def imported_rooms(path: Path) -> set[str]:
    """First parts of the package's modules that a file imports, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            deeper = [f"{node.module}.{alias.name}" for alias in node.names]
            names = deeper if node.module == "gormley_vision" else [node.module or ""]
        rooms |= {name.split(".")[1] for name in names if name.startswith("gormley_vision.")}
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    room = room_of(path)
    upward = imported_rooms(path) - ALLOWED[room] - {room}
    assert not upward, f"{room} may not import {upward}"


def test_the_table_of_rooms_has_no_cycle():
    left = {room: set(below) for room, below in ALLOWED.items()}
    while left:
        free = {room for room, below in left.items() if not below & left.keys()}
        assert free, f"cycle among {set(left)}"
        left = {room: below for room, below in left.items() if room not in free}


def test_files_stay_small_and_say_what_they_are():
    programs = [path for folder in ("scripts", "benchmarks") for path in (ROOT / folder).glob("*.py")]
    for path in [*ROOT.glob("*.py"), *PACKAGE.rglob("*.py"), *programs]:
        assert len(path.read_text().splitlines()) <= 400, path
        assert path.stem not in {"utils", "util", "common", "misc", "base", "helpers"}, path


def test_configs_and_flags_load_nothing_heavy():
    code = (
        "import sys, glob; from pathlib import Path; from gormley_vision import command_line, user_code\n"
        "for f in glob.glob('configs/*.py'): command_line.load_config_file(f)\n"
        "for f in glob.glob('configs/sweeps/*.py'): user_code.load_python(Path(f))\n"
        "print(sorted({'jax', 'flax', 'optax', 'numpy', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_checkpoints_know_orbax():
    files = [
        path for path in PACKAGE.rglob("*.py") if re.search(r"^\s*(import|from) orbax", path.read_text(), re.MULTILINE)
    ]
    assert [path.name for path in files] == ["checkpoints.py"]
