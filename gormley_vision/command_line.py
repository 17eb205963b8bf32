"""The command line: `--config=FILE[:arg]` and `--config.KEY=VALUE`, checked before anything slow is imported.

jax and its friends take seconds to import; a mistyped key is refused in a tenth of one.
"""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import ml_collections

from gormley_vision.config import TYPE_NAMES, Field, fault_of, fields_of, nearest
from gormley_vision.errors import UserError


def load_config_file(spec: str) -> ml_collections.ConfigDict:
    """Run `get_config(arg)` of a config file given as `FILE` or `FILE:arg`."""
    name, _, arg = spec.partition(":")
    return load_python(Path(name)).get_config(arg)


def load_python(path: Path) -> ModuleType:
    """Run the Python file that --config names.

    Raises:
        UserError: not there; with the nearest that is.
    """
    if not path.is_file():
        shipped = sorted(str(p) for p in path.parent.glob("*.py"))
        raise UserError(f"--config={path}: no such file; {nearest(str(path), shipped)}")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    # Not by importlib, whose cached bytecode is a file's of the same size and second.
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    return module


def check_flags(argv: list[str]) -> None:
    """Refuse unknown config keys and values of a wrong type or choice, with the nearest valid name."""
    if any(word.lstrip("-") in ("help", "helpshort", "helpfull") for word in argv):
        return
    fields = fields_of(load_config_file(_config_spec(argv)))
    problems = []
    for key, text in _overrides(argv):
        if key not in fields:
            problems.append(f"--config.{key}: no such key; {nearest(key, fields)}")
        elif key == "task":
            problems.append(f"--config.task: {fields[key].meaning}")
        elif problem := _problem_with(text, fields[key]):
            problems.append(f"--config.{key}={text or ''}: {problem} ({fields[key].meaning})")
    if problems:
        raise UserError("\n  ".join(["the command line is wrong:", *problems]))


def _overrides(argv: list[str]) -> Iterator[tuple[str, str | None]]:
    """(key, text) for each `--config.KEY=TEXT` or `--config.KEY TEXT`; text None where it is missing."""
    for position, word in enumerate(argv):
        flag, equals, text = word.lstrip("-").partition("=")
        if word.startswith("-") and flag.startswith("config."):
            following = argv[position + 1] if position + 1 < len(argv) else "-"
            yield (
                flag.removeprefix("config."),
                text if equals else None if following.startswith("--") else following,
            )


def _config_spec(argv: list[str]) -> str:
    for position, word in enumerate(argv):
        if word in ("--config", "-config") and position + 1 < len(argv):
            return argv[position + 1]
        if word.startswith(("--config=", "-config=")):
            return word.partition("=")[2]
    shipped = " ".join(sorted(str(path) for path in Path("configs").glob("*.py")))
    raise UserError(f"name an experiment: --config=FILE, one of {shipped or 'configs/*.py'}")


def _problem_with(text: str | None, field: Field) -> str:
    """Why this text is no value for this field; '' when it is one."""
    kind = type(field.default)
    needs = f"needs {TYPE_NAMES[kind]}"
    if text is None:
        return "" if kind is bool else needs
    if kind is bool:
        return "" if text.lower() in ("true", "false") else needs
    try:
        value = kind(text)
    except ValueError:
        return needs
    return fault_of(value, field)
