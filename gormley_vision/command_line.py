"""The command line: `--config=FILE[:arg]` and `--config.KEY=VALUE`, checked before anything slow is imported.

Importing jax takes seconds, but a mistyped key is refused in a tenth of a second. The config is read once, and only
this module parses it from the command line, so that what was checked is what runs.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import ml_collections

from gormley_vision.config import TYPE_NAMES, check_values, fault_of, fields_of, nearest, reset_unread, validate
from gormley_vision.errors import UserError
from gormley_vision.fields import Field, Value
from gormley_vision.files import user_path
from gormley_vision.user_code import blamed, load_python

_HOW = 'def get_config(arg=""): return default_config("classification")'


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The experiment given by --config and --config.KEY=VALUE."""

    path: Path
    arg: str
    config: ml_collections.ConfigDict
    given: Collection[str]  # the keys set on the command line

    @property
    def name(self) -> str:
        """A name such as 'vit_mnist' or 'vit_mnist_smoke'."""
        return f"{self.path.stem}_{self.arg}" if self.arg else self.path.stem


def load_config_file(spec: str) -> ml_collections.ConfigDict:
    """Run `get_config(arg)` of a config file given as `FILE` or `FILE:arg`.

    Raises:
        UserError: the file fails, or does not return a config. Names its line.
    """
    path, arg = split_spec(spec)
    module = load_python(path)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        if hasattr(module, "sweep"):
            raise UserError(f"{path} is a sweep: python scripts/sweep.py --config={spec}")
        raise UserError(f"{path} has no get_config: write {_HOW}")
    try:
        inspect.signature(get_config).bind(arg)
    except TypeError:
        line = getattr(getattr(get_config, "__code__", None), "co_firstlineno", 1)
        raise UserError(f"{path}, line {line}: get_config must take one argument: write {_HOW}") from None
    with blamed(path):
        config = get_config(arg)
    if not isinstance(config, ml_collections.ConfigDict) or not isinstance(config.get("task"), str):
        found = "nothing: is `return config` missing?" if config is None else f"{type(config).__name__} without a task:"
        raise UserError(f"{path}: get_config returns {found} start from default_config(task), and return that")
    with blamed(path):
        check_values(config)
    return config


def split_spec(spec: str) -> tuple[Path, str]:
    """Split `FILE` or `FILE:arg` into the file and its argument; a file's name may contain a colon."""
    name, colon, arg = spec.rpartition(":")
    return (user_path(name), arg) if colon and not user_path(spec).is_file() else (user_path(spec), "")


def settle(config: ml_collections.ConfigDict, given: Collection[str]) -> None:
    """Check the config that the file and the command line gave, before anything slow.

    Keys that the file set and that nothing reads, because the command line made another choice, are reset to their
    defaults; one line is printed for each.

    Args:
        config: includes the command line's values; changed in place.
        given: the keys set on the command line.

    Raises:
        UserError: names each wrong key.
    """
    check_values(config)
    for line in reset_unread(config, given):
        print(line, file=sys.stderr)
    validate(config)


def run(main: Callable[[Experiment], int]) -> None:
    """Run `main(experiment)` of a program whose other flags are absl's, and exit with the status that it returns.

    Raises:
        UserError: any mistake in the command line.
    """
    from absl import app, flags  # takes 0.1 s to import

    argv = sys.argv[1:]
    if any(word.lstrip("-").partition("=")[0] in ("help", "helpshort", "helpfull", "helpxml") for word in argv):
        app.run(lambda _: 0)
    experiment, words = read(argv)
    settle(experiment.config, experiment.given)

    def parse(words: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(words)
        except flags.UnrecognizedFlagError as error:
            name, keys = error.flagname, list(fields_of(experiment.config))
            meant = [key for key in keys if name in (key, key.rpartition(".")[2])]
            if meant:
                raise UserError(f"--{name}: a key of the config is written --config.{meant[0]}=VALUE") from None
            raise UserError(f"{str(error).replace(' ?', '?')} --help lists the flags") from None
        except flags.Error as error:
            raise UserError(str(error)) from None
        if rest[1:]:
            raise UserError(f"{' '.join(rest[1:])}: does not belong to a flag; values are written --config.KEY=VALUE")
        return rest

    app.run(lambda _: main(experiment), argv=[sys.argv[0], *words], flags_parser=parse)


def read(argv: Sequence[str]) -> tuple[Experiment, list[str]]:
    """Return the experiment that a command line gives, and its other words.

    Raises:
        UserError: no config file, or two; unknown keys or wrong values, with the nearest valid one.
    """
    spec, words = _config_spec(argv)
    path, arg = split_spec(spec)
    config = load_config_file(spec)
    given, words = _apply(config, words)
    return Experiment(path, arg, config, given), words


def override(config: dict, words: list[str], section: str) -> dict:
    """Apply `--config.SECTION.KEY=VALUE` words of a script to a run's config, checked as in train.py.

    Raises:
        UserError: other words, other sections, or what `settle` refuses.
    """
    changed = ml_collections.ConfigDict(config).lock()
    given, others = _apply(changed, words)
    others += [f"--config.{key}" for key in given if not key.startswith(f"{section}.")]
    if others:
        raise UserError(f"{' '.join(others)}: unknown here; only --config.{section}.KEY=VALUE can be set")
    settle(changed, given)
    return changed.to_dict()


def _apply(config: ml_collections.ConfigDict, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Apply `--config.KEY=VALUE` words to the config. Returns the keys, and the other words."""
    fields = fields_of(config)
    overrides, words = _overrides(argv, fields)
    problems = []
    for key, text in overrides:
        if key not in fields:
            problems.append(f"--config.{key}: no such key; {nearest(key, fields)}")
        elif key == "task":
            problems.append("--config.task: the config file chooses the task, by default_config(task); write one")
        elif problem := _problem_with(text, fields[key]):
            problems.append(f"--config.{key}={text or ''}: {problem} ({fields[key].meaning})")
    if problems:
        raise UserError("\n  ".join(["the command line is wrong:", *problems]))
    config.update_from_flattened_dict({key: _parsed(text, fields[key]) for key, text in overrides})
    return list(dict.fromkeys(key for key, _ in overrides)), words


def _parsed(text: str | None, field: Field) -> Value:
    kind = type(field.default)
    return text is None or text.lower() in ("true", "1") if kind is bool else kind(text or "")


def _overrides(argv: Sequence[str], fields: dict[str, Field]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Return (key, text) of each `--config.KEY=TEXT`, `--config.KEY TEXT` or `--noconfig.KEY`, and the other words.

    The text is None if it is missing, as after a bool, whose name means true.
    """
    found: list[tuple[str, str | None]] = []
    others, left = [], list(argv)
    while left:
        word = left.pop(0)
        flag, equals, text = word.lstrip("-").partition("=")
        negated, dot, key = flag.partition("config.")
        if not (word.startswith("-") and dot and negated in ("", "no")):
            others.append(word)
        elif negated:
            found.append((key, "false"))
        elif equals:
            found.append((key, text))
        else:
            is_bool = key in fields and isinstance(fields[key].default, bool)
            takes_next = left and not left[0].startswith("--") and not is_bool
            found.append((key, left.pop(0) if takes_next else None))
    return found, others


def _config_spec(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the FILE of `--config=FILE` or `--config FILE`, and the other words."""
    specs, others, left = [], [], list(argv)
    while left:
        word = left.pop(0)
        if word in ("--config", "-config") and left:
            specs.append(left.pop(0))
        elif word.startswith(("--config=", "-config=")):
            specs.append(word.partition("=")[2])
        else:
            others.append(word)
    if len(specs) > 1:
        raise UserError(f"--config is given {len(specs)} times, {' and '.join(specs)}: name one experiment")
    if not specs or not specs[0]:
        shipped = " ".join(sorted(str(path) for path in Path("configs").glob("*.py")))
        here = "" if shipped else f"; the current folder, {Path.cwd()}, has no folder configs"
        raise UserError(f"name an experiment: --config=FILE, one of {shipped or 'configs/*.py'}{here}")
    return specs[0], others


def _problem_with(text: str | None, field: Field) -> str:
    """Return why this text is not a value of this field; '' if it is."""
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
