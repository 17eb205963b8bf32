"""Who may import whom (docs/architecture.md), read from the source: no upward arrow, no cycle, nothing heavy early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gormley_vision"
# Each room may import those on its line, and itself.
ALLOWED = {
    "errors": set(),
    "signals": set(),
    "files": {"errors"},
    "logs": set(),
    "randomness": {"errors"},
    "durations": {"errors"},
    "axes": set(),
    "mesh_rules": {"errors"},
    "fields": set(),
    "config": {"fields", "mesh_rules", "durations", "errors"},
    "command_line": {"config", "fields", "errors", "files"},
    "layers": set(),
    "losses": set(),
    "augmentation": set(),
    "metrics": set(),
    "data": {"errors", "files"},
    "models": {"layers", "errors"},
    "tasks": {"axes", "augmentation", "models", "layers", "losses", "metrics", "randomness", "errors"},
    "training": {"axes", "mesh_rules", "data", "config", "durations", "files", "errors", "randomness", "signals"},
    "experiment": {"mesh_rules", "training", "tasks", "models", "losses", "data", "config", "durations", "errors"},
    "sampling": {"experiment", "training", "tasks", "config", "data", "errors", "files", "randomness"},
    "inspection": {"sampling", "tasks", "models", "layers", "errors"},
    "run": {"experiment", "training", "errors", "files", "logs"},
    "planning": {"mesh_rules", "experiment", "training", "data", "config", "errors"},
    "sweeps": {"command_line", "config", "durations", "files", "errors", "signals"},
    "__init__": {"sampling"},
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
    for path in [*ROOT.glob("*.py"), *PACKAGE.rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path
        assert path.stem not in {"utils", "util", "common", "misc", "base", "helpers"}, path


def test_configs_and_flags_load_nothing_heavy():
    code = (
        "import sys, glob; from pathlib import Path; from gormley_vision import command_line\n"
        "for f in glob.glob('configs/*.py'): command_line.load_config_file(f)\n"
        "for f in glob.glob('configs/sweeps/*.py'): command_line.load_python(Path(f))\n"
        "print(sorted({'jax', 'flax', 'optax', 'numpy', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
