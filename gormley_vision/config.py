"""Configs: created from tables of fields, checked, compared, shrunk, and read from older runs.

A config is a locked `ml_collections.ConfigDict` with exactly the keys of its table, which are those of every run
(fields.RUN_FIELDS) and those of its task (task_modules.py): each section becomes the keyword arguments of one
constructor, which refuses unknown ones. Values are only bool, int, float or str: a ConfigDict cannot override None, and
JSON turns tuples into lists.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from gormley_vision import durations, task_modules
from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.fields import RETIRED, RUN_FIELDS, Field, Value
from gormley_vision.files import read_json
from gormley_vision.mesh_rules import are_rules, parse_rules

TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def fields_of(config: Mapping) -> dict[str, Field]:
    """Return the config's table: the keys of every run, and those of its task."""
    return {**RUN_FIELDS, **task_modules.find(config["task"]).FIELDS}


def default_config(task: str) -> ml_collections.ConfigDict:
    """Return a locked config with every key at its default; `task` is a name or a dotted path (task_modules.py)."""
    config = ml_collections.ConfigDict()
    for key, field in fields_of({"task": task}).items():
        section, _, name = key.rpartition(".")
        if section and section not in config:
            config[section] = ml_collections.ConfigDict()
        (config[section] if section else config)[name] = field.default
    config.task = task
    return config.lock()


def step_images(config: Mapping) -> int:
    """Return the number of examples in one step: k minibatches."""
    return config["data"]["batch_size"] * task_modules.find(config["task"]).minibatches(config)


def flatten(config: Mapping, prefix: str = "") -> dict[str, Value]:
    """Return `{'data.batch_size': 64, ...}` in the config's own order."""
    flat: dict[str, Value] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat.update(
            flatten(value, f"{name}.") if isinstance(value, Mapping | ml_collections.ConfigDict) else {name: value}
        )
    return flat


def validate(config: Mapping) -> None:
    """Refuse a config that its table does not allow (`validate_fields`), or that contradicts itself.

    Raises:
        UserError: names each wrong key, and what to type.
    """
    validate_fields(config)
    parse_rules(config["mesh"]["rules"])
    batch, accumulate = config["data"]["batch_size"], config["accumulate"]
    if batch % accumulate:
        raise UserError(
            f"data.batch_size={batch} does not divide into accumulate={accumulate} microbatches: "
            f"--config.data.batch_size={nearest_multiple(batch, accumulate)}"
        )
    task = task_modules.find(config["task"])
    if config["mesh"]["rules"] == fields_of(config)["mesh.rules"].default:  # other rules are checked against the shapes
        _refuse([fault for key in task.TENSOR_KEYS if (fault := _tensor_fault(key, flatten(config)))])
    task.check(config)


def validate_fields(config: Mapping) -> None:
    """Refuse a config that does not fit its table (`check_values`), or sets keys that nothing reads.

    Raises:
        UserError: names each wrong key, and what to type.
    """
    check_values(config)
    fields, flat = fields_of(config), flatten(config)
    _refuse([f"{key}={flat[key]!r}: {why_unread(key, fields, flat)}" for key in unread_keys(config)])


def check_values(config: Mapping) -> None:
    """Refuse a config whose keys, types, ranges or choices are not those of its table.

    Raises:
        UserError: names each wrong key, and what to type.
    """
    fields, flat = fields_of(config), flatten(config)
    problems = [f"{key}: no such key; {nearest(key, fields)}" for key in flat.keys() - fields.keys()]
    problems += [f"{key}: missing ({fields[key].meaning})" for key in fields.keys() - flat.keys()]
    for key in fields.keys() & flat.keys():
        field, value = fields[key], flat[key]
        if type(value) is not type(field.default):
            problems.append(f"{key}={value!r}: needs {TYPE_NAMES[type(field.default)]} ({field.meaning})")
        elif fault := fault_of(value, field):
            problems.append(f"{key}={value!r}: {fault}")
    _refuse(problems)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UserError("the config is wrong:\n  " + "\n  ".join(sorted(problems)))


def _tensor_fault(key: str, flat: Mapping[str, Any]) -> str:
    size, parts = flat[key], flat["mesh.tensor"]
    if not size % parts:
        return ""
    return f"{key}={size} does not divide over mesh.tensor={parts}: --config.{key}={nearest_multiple(size, parts)}"


def fault_of(value: Value, field: Field) -> str:
    """Return why a value of the right type is still invalid for this field; '' if it is valid."""
    if field.choices and value not in field.choices and not field.is_module(value):
        if field.or_module and re.search(r"[./]", str(value)):
            return "a module is written with dots: " + repr(
                ".".join(re.findall(r"\w+", str(value).removesuffix(".py")))
            )
        return nearest(str(value), [str(choice) for choice in field.choices])
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if field.at_least is not None and isinstance(value, int | float):
        if value < field.at_least:
            return f"must be at least {field.at_least}"
        if field.at_most is not None and value > field.at_most:
            return f"must be at most {field.at_most}"
        if field.below is not None and value >= field.below:
            return f"must be below {field.below}"
    if field.is_duration and value and not durations.is_duration(str(value)):
        return "write '50 epochs', '20000 steps' or '5M images'"
    return ""


def unread_keys(config: Mapping) -> list[str]:
    """Return the keys that differ from their defaults but that nothing reads, given the config's choices."""
    fields, flat = fields_of(config), flatten(config)
    differ = [key for key, field in fields.items() if flat[key] != field.default]
    return [key for key in differ if _unmet(key, fields, flat)]


def _unmet(key: str, fields: Mapping[str, Field], flat: Mapping[str, Value]) -> str:
    """Return the key whose value keeps `key` from being read; '' if it is read."""
    for other, values in fields[key].when.items():
        if not (flat[other] in values or fields[other].is_module(flat[other]) if values else _is_on(flat[other])):
            return other
    return ""


def _is_on(value: Value) -> bool:
    return value not in ("", "none", 0) and not (isinstance(value, str) and durations.is_zero(value))


def why_unread(key: str, fields: Mapping[str, Field], flat: Mapping[str, Value]) -> str:
    """Return what keeps a key from being read, and what to type instead."""
    field, other = fields[key], _unmet(key, fields, flat)
    values = [str(value).lower() if isinstance(value, bool) else str(value) for value in field.when[other]]
    instead = f"pass --config.{other}={values[0]}" if values else f"set --config.{other}"
    instead += f" (or {', '.join(values[1:])})" if values[1:] else ""
    return f"nothing reads it if {other}={flat[other]!r}; {instead}, or leave it at {field.default!r}"


def reset_unread(config: Any, given: Collection[str] | None = None) -> list[str]:
    """Reset keys that nothing reads to their defaults, in place. Returns one line for each.

    A config file sets keys for its own choices, and the command line may make another choice: with `given`, the keys
    set there, only keys that became unread by these are reset. A key in `given` itself stays, to be refused.
    """
    fields, flat, lines = fields_of(config), flatten(config), []
    changed = set(fields if given is None else given)
    for key in fields:  # a choice precedes the keys that depend on it
        reader = _unmet(key, fields, flat)
        if not reader or flat[key] == fields[key].default or reader not in changed or (given and key in given):
            continue
        lines.append(f"{key}={flat[key]!r} is left out: nothing reads it if {reader}={flat[reader]!r}")
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = flat[key] = fields[key].default
        changed.add(key)
    return lines


def run_config(workdir: Path) -> dict[str, Any]:
    """Read the config of the run in a folder, converted to today's keys.

    Raises:
        UserError: the folder has no run, or its config is damaged.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"no run in {workdir}: there is no config.json")
    saved = read_json(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("task"), str):
        raise UserError(f"{path} is damaged: it does not name a task; restore it, or move its folder away")
    return upgraded(saved)


def upgraded(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a config that an earlier version wrote to today's keys; missing ones get their defaults.

    Raises:
        UserError: it has keys that no earlier version had.
    """
    fields, flat = fields_of(saved), flatten(saved)
    flat = {RETIRED.get(key, key) if key not in fields else key: value for key, value in flat.items()}
    flat.pop("", None)
    if unknown := sorted(flat.keys() - fields.keys()):
        raise UserError(f"this run was made by another version, whose keys are unknown here: {', '.join(unknown)}")
    if not are_rules(str(flat.get("mesh.rules", ""))):  # an earlier version's: patterns of parameters' names
        flat["mesh.rules"] = fields["mesh.rules"].default
    config = default_config(saved["task"])
    config.update_from_flattened_dict(flat)
    reset_unread(config)
    return config.to_dict()


def changed_keys(old: Mapping, new: Mapping) -> list[str]:
    """Return lines `key: old -> new` for keys that differ and must not change on resume; `old` may be older."""
    fields, a, b = fields_of(new), flatten(upgraded(old)), flatten(new)
    return [
        f"{key}: {a.get(key, '(absent)')!r} -> {b.get(key, '(absent)')!r}"
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key) and not (key in fields and fields[key].may_change)
    ]


def describe(config: Mapping) -> str:
    """Return one line for each key: its value, and its meaning as a comment."""
    fields, flat = fields_of(config), flatten(config)
    left = {key: f"{key} = {value!r}" for key, value in flat.items()}
    width = max(map(len, left.values()))
    return "\n".join(f"{left[key]:<{width}}  # {fields[key].meaning}" for key in flat)


def check_arg(arg: str) -> bool:
    """Return whether a config file's argument asks for the smoke version; refuse other arguments."""
    if arg not in ("", "smoke"):
        raise UserError(f"config argument ':{arg}': only ':smoke' (shrink to seconds) is known")
    return arg == "smoke"


def shrink(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return the smoke version of any experiment: the same code on tiny shapes, in seconds.

    Data that a machine may not have are replaced by fake images, another run's weights by fresh ones, and the state is
    not divided over devices.
    """
    if config.data.source in ("tfds", "npz", "folder", "hf"):
        config.data.update(source="fake", split="train")
    config.init_from = ""
    small: dict[str, Value] = {
        "duration": "8 steps",
        "data.batch_size": 16,
        "checkpoint.every": "3 steps",
        "log.every": "1 steps",
        "log.samples_every": "4 steps",
        "mesh.fsdp": 1,
        "mesh.tensor": 1,
    }
    small |= task_modules.find(config.task).smoke(config)
    if unknown := sorted(small.keys() - fields_of(config).keys()):
        raise UserError(f"smoke(config) of the task {config.task!r} sets keys that it lacks: {', '.join(unknown)}")
    config.update_from_flattened_dict(small)
    reset_unread(config)
    return config


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return what to type instead of `word`."""
    valid = list(valid)
    near = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    if not near:  # a key typed without its section, or under another one
        near = [key for key in valid if key.rpartition(".")[2] == word.rpartition(".")[2]]
    choices = "one of " + ", ".join(repr(choice) for choice in valid)
    if near:
        return f"did you mean {near[0]!r}?" + (f" ({choices})" if len(valid) <= 6 else "")
    return choices if len(valid) <= 12 else "--print_config lists the keys"
