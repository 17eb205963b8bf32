"""Finds tasks by name: a folder of gormley_vision/tasks, or a user's own module. Loads no jax.

A task is a module (a file or a folder) that has

- `FIELDS`: its config keys, {key: Field}, besides those of every run (fields.RUN_FIELDS);
- `make(config, data)`: returns the task itself (training/task.py) for a data set with these features and this length
  (data/features.Description); it imports jax, the module's top level does not;

and optionally the other attributes of `TaskModule`. What a task can do besides training (evaluate, sample, start from
other weights) is defined by its methods; see training/task.py.
"""

import dataclasses
import functools
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from gormley_vision import tasks
from gormley_vision.errors import UserError
from gormley_vision.fields import Field, Value
from gormley_vision.user_code import import_module

Config = Mapping[str, Any]
SAMPLE_FLAGS = ("workdir", "out", "num", "seed", "step", "help")  # of scripts/sample.py, for every task
_FUNCTIONS = ("make", "smoke", "check", "minibatches", "needs", "described", "evaluated")


def images(config: Config, class_names: tuple[str, ...]) -> Mapping[str, Any]:
    """Describe images of the config's shape, and these classes: what a task sees if it does not say otherwise."""
    from gormley_vision.data.features import Feature, label_feature  # imports numpy

    data = config["data"]
    shape = (data["image_size"], data["image_size"], data["channels"])
    return {"image": Feature("image", shape, "uint8"), **label_feature(class_names)}


@dataclasses.dataclass(frozen=True)
class TaskModule:
    """What a task declares before jax is loaded."""

    FIELDS: Mapping[str, Field]
    make: Callable[..., Any]
    # {key: value} that shrink a config to seconds.
    smoke: Callable[[Config], Mapping[str, Value]] = lambda config: {}
    # Refuses a config that contradicts itself, by UserError.
    check: Callable[[Config], None] = lambda config: None
    # k: minibatches, of data.batch_size examples, in a step.
    minibatches: Callable[[Config], int] = lambda config: 1
    # {name: kind} of the features that an example must have (data/features.py).
    needs: Callable[[Config], Mapping[str, str]] = lambda config: {}
    # The features of a data set that is not available, of a config and the names of its classes: for planning.
    described: Callable[[Config, tuple[str, ...]], Mapping[str, Any]] = images
    # Keys of sizes that the default mesh.rules split over mesh.tensor.
    TENSOR_KEYS: tuple[str, ...] = ()
    # Flags of scripts/sample.py besides those of every task.
    SAMPLING: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    # Flags of scripts/evaluate.py besides those of every task, {flag: key that it sets}, and a function that completes
    # the config.
    EVALUATION: Mapping[str, str] = dataclasses.field(default_factory=dict)
    evaluated: Callable[[dict[str, Any], Config], None] = lambda config, trained: None


def names() -> list[str]:
    """Return the tasks that come with the package."""
    return sorted(module.name for module in pkgutil.iter_modules(tasks.__path__) if module.ispkg)


@functools.cache
def find(task: str) -> TaskModule:
    """Return the module that `config.task` names; a dotted path is also looked up in the current folder.

    Raises:
        UserError: there is no such module, or it is not a task. Errors inside the module are raised unchanged.
    """
    path = f"{tasks.__name__}.{task}" if task in names() else task
    known = f"a task is one of {', '.join(map(repr, names()))}, or a module of yours, such as 'my_package.my_task'"
    if not all(map(str.isidentifier, path.split("."))):
        raise UserError(f"task={task!r}: {known}")
    module = import_module("task", path, known)
    parts = {field.name: getattr(module, field.name, None) for field in dataclasses.fields(TaskModule)}
    if missing := [name for name in ("FIELDS", "make") if parts[name] is None]:
        raise UserError(f"task={task!r}: {path} lacks {' and '.join(missing)} (docs/extending.md); {known}")
    found = TaskModule(**{name: part for name, part in parts.items() if part is not None})
    if faults := _faults_of(found):
        raise UserError(f"task={task!r}: in {path} {'; '.join(faults)} (docs/extending.md)")
    return found


def _faults_of(task: TaskModule) -> list[str]:
    """Return what is wrong with what a module declares, as far as it can be seen without calling it."""
    faults = [
        f"{name} must be {{name: Field}}, each from gormley_vision.fields"
        for name in ("FIELDS", "SAMPLING")
        if not _is_dict(getattr(task, name), Field)
    ]
    faults += [f"{name} must be a function" for name in _FUNCTIONS if not callable(getattr(task, name))]
    if not _is_dict(task.EVALUATION, str):
        faults.append("EVALUATION must be {flag: key}")
    if faults:
        return faults
    faults += [f"SAMPLING names {name!r}, a flag of every task" for name in SAMPLE_FLAGS if name in task.SAMPLING]
    keys = {"TENSOR_KEYS": task.TENSOR_KEYS, "EVALUATION": task.EVALUATION.values()}
    return faults + [
        f"{name} names {key!r}, which FIELDS lacks" for name in keys for key in keys[name] if key not in task.FIELDS
    ]


def _is_dict(part: Any, kind: type) -> bool:
    return isinstance(part, Mapping) and all(isinstance(k, str) and isinstance(v, kind) for k, v in part.items())
