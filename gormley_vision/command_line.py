"""The command line: `--config=FILE[:arg]` and `--config.KEY=VALUE`, checked before anything slow is imported.

jax and its friends take seconds to import; a mistyped key is refused in a tenth of one.
"""

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

import ml_collections

from gormley_vision.config import TYPE_NAMES, fault_of, fields_of, nearest, reset_unread, validate
from gormley_vision.errors import UserError
from gormley_vision.fields import Field, Value
from gormley_vision.files import user_path


def load_config_file(spec: str) -> ml_collections.ConfigDict:
    """Run `get_config(arg)` of a config file given as `FILE` or `FILE:arg`."""
    path, arg = split_spec(spec)
    return load_python(path).get_config(arg)


def split_spec(spec: str) -> tuple[Path, str]:
    """`FILE` or `FILE:arg` as the file and its argument; a file may have a colon in its name."""
    name, colon, arg = spec.rpartition(":")
    return (user_path(name), arg) if colon and not user_path(spec).is_file() else (user_path(spec), "")


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
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    return module


def settle(config: ml_collections.ConfigDict, given: Collection[str], words: Collection[str] = ()) -> None:
    """Check what the config file and the command line made together, before anything slow.

    Keys that the file set for a choice of its own, and that nothing reads now that the command line chose otherwise,
    go back to their defaults, each with a line.

    Args:
        config: with the command line's values; changed in place.
        given: the keys that the command line named.
        words: what the command line has besides flags.

    Raises:
        UserError: names each key at fault; or a word that belongs to no flag.
    """
    if words:
        raise UserError(f"{' '.join(words)}: belongs to no flag; values are written --config.KEY=VALUE")
    for line in reset_unread(config, given):
        print(line, file=sys.stderr)
    validate(config)


def check_flags(argv: list[str]) -> list[str]:
    """Refuse unknown config keys and values of a wrong type or choice, with the nearest valid name.

    Returns:
        The words for absl, the config's path with its `~` expanded.
    """
    if any(word.lstrip("-") in ("help", "helpshort", "helpfull") for word in argv):
        return argv
    position, spec = _config_spec(argv)
    _check_overrides(argv, fields_of(load_config_file(spec)))
    name = argv[position].partition("=")[0]
    return [*argv[:position], f"{name}={user_path(spec)}", *argv[position + (1 if "=" in argv[position] else 2) :]]


def override(config: dict, words: list[str], section: str) -> dict:
    """A run's config with `--config.SECTION.KEY=VALUE` words of a script's command line, checked as train.py does.

    Raises:
        UserError: another word, another section, or what `settle` refuses.
    """
    fields = fields_of(config)
    _check_overrides(words, fields)
    given, others = dict(_overrides(words)), [word for word in words if not word.startswith("--config.")]
    others += [f"--config.{key}" for key in given if not key.startswith(f"{section}.")]
    if others:
        raise UserError(f"{' '.join(others)}: unknown here; of a run's config, --config.{section}.KEY=VALUE can be set")
    changed = ml_collections.ConfigDict(config).lock()
    changed.update_from_flattened_dict({key: _parsed(text, fields[key]) for key, text in given.items()})
    settle(changed, given)
    return changed.to_dict()


def _parsed(text: str | None, field: Field) -> Value:
    kind = type(field.default)
    return text is None or text.lower() in ("true", "1") if kind is bool else kind(text or "")


def _check_overrides(argv: list[str], fields: dict[str, Field]) -> None:
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
    """(key, text) for each `--config.KEY=TEXT`, `--config.KEY TEXT` or `--noconfig.KEY`; text None without one."""
    for position, word in enumerate(argv):
        flag, equals, text = word.lstrip("-").partition("=")
        negated, dot, key = flag.partition("config.")
        if not (word.startswith("-") and dot and negated in ("", "no")):
            continue
        following = argv[position + 1] if position + 1 < len(argv) else "--"
        if negated:
            yield key, "false"
        else:
            yield key, text if equals else None if following.startswith("--") else following


def _config_spec(argv: list[str]) -> tuple[int, str]:
    """Where the flag stands, and what it names."""
    for position, word in enumerate(argv):
        if word in ("--config", "-config") and position + 1 < len(argv):
            return position, argv[position + 1]
        if word.startswith(("--config=", "-config=")):
            return position, word.partition("=")[2]
    shipped = " ".join(sorted(str(path) for path in Path("configs").glob("*.py")))
    raise UserError(f"name an experiment: --config=FILE, one of {shipped or 'configs/*.py'}")


def _problem_with(text: str | None, field: Field) -> str:
    """Why this text is no value for this field; '' when it is one."""
    kind = type(field.default)
    needs = f"needs {TYPE_NAMES[kind]}"
    if text is None:
        return "" if kind is bool else needs
    if kind is bool:
        return "" if text.lower() in ("true", "false", "1", "0") else needs
    try:
        value = kind(text)
    except ValueError:
        return needs
    return fault_of(value, field)
