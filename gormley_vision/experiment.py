"""Makes what a config describes, for any task: the task itself, the batches, the evaluation."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from gormley_vision import durations, task_modules
from gormley_vision.data import slices
from gormley_vision.data.batches import Batches, open_batches
from gormley_vision.data.features import Description
from gormley_vision.errors import UserError, listed
from gormley_vision.training import hosts
from gormley_vision.training.checkup import Checkup
from gormley_vision.training.evaluation import Evaluation
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import Evaluated, Task

log = logging.getLogger(__name__)
Config = Mapping[str, Any]
_SPLIT = "--config.data.split="  # in errors of sources, which only know this key
_WITHOUT_EFFECT = ("batch_size", "placement", "workers", "cache_dir", "max_megapixels")  # on figures


def make_batches(config: Config, progress=None, split: str = "", class_names: tuple[str, ...] = ()) -> Batches:
    """Open the data set and its order for this process.

    `split` and `class_names`, if given, replace the config's split and the data set's classes, matched by name.
    """
    data = {**config["data"], "split": split or config["data"]["split"]}
    task = task_modules.find(config["task"])
    return open_batches(
        seed=config["seed"],
        minibatches=task.minibatches(config),
        data=data,
        needs=task.needs(config),
        columns=None if hosts.is_single_process() else Shardings(mesh_of(config), ()).columns(data["batch_size"]),
        class_names=class_names,
        progress=progress,
    )


def mesh_of(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Make the config's mesh, of all devices or of these."""
    return make_mesh(config["mesh"], config["data"]["batch_size"], config["accumulate"], devices)


def make_task(config: Config, data: Description) -> Task:
    """The task of a config on such a data set.

    Raises:
        UserError: a task whose parts do not belong together; says what is missing.
    """
    task = task_modules.find(config["task"]).make(config, data)
    if missing := [name for name in ("init", "train_step", "afterwards") if not hasattr(task, name)]:
        raise UserError(f"the task {config['task']!r} lacks {' and '.join(missing)}: see docs/extending.md")
    if hasattr(task, "preview") and not hasattr(task, "show"):
        raise UserError(f"the task {config['task']!r} has preview and no show: see docs/extending.md")
    if hasattr(task, "eval_step") and "eval" not in config:
        raise UserError(f"the task {config['task']!r} has eval_step, and its FIELDS lack EVALUATION_FIELDS")
    return task


def described(config: Config, class_names: tuple[str, ...], length: int) -> Description:
    """Describe a data set that is not available, with these classes if it has any."""
    return Description(task_modules.find(config["task"]).described(config, class_names), length)


def make_part(
    config: Config,
    key: str,
    split: str,
    progress=None,
    class_names: tuple[str, ...] = (),
    trained: Batches | None = None,
) -> Batches:
    """Open the part `split` of the data set, which the config's `key` names.

    If `trained` is given, that on which the run trains, the part must not share examples with it.

    Raises:
        UserError: there is no such part; says what to type for `key`.
    """
    used = config["data"]["split"]
    try:
        found = make_batches(config, progress, split=split, class_names=class_names)
    except UserError as error:
        flag = f"--config.{key}"
        advice = held_out_advice(str(error), used, flag) if trained else str(error).replace(_SPLIT, f"{flag}=")
        raise UserError(f"{key}={split}: {advice}") from None
    if trained and overlap((used, trained), (split, found)):
        raise UserError(
            f"{key}={split} has examples that are trained on (data.split={used}): {cut(used, f'--config.{key}')}"
        )
    return found


def overlap(a: tuple[str, Batches], b: tuple[str, Batches]) -> bool:
    """Return whether two splits of one data set share examples; false if their source does not tell."""
    (first, here), (second, there) = a, b
    if here.sha256 == there.sha256:
        return True
    (start, stop), (other_start, other_stop) = (x.identity.get("part", (0, math.inf)) for x in (here, there))
    parts_meet = max(start, other_start) < min(stop, other_stop)
    if "shards" in here.identity and "shards" in there.identity:  # TFDS: files and what is read of them
        return parts_meet and any(
            name == other and max(skip, other_skip) < min(_end(skip, take), _end(other_skip, other_take))
            for name, skip, take, _ in here.identity["shards"]
            for other, other_skip, other_take, _ in there.identity["shards"]
        )
    if slices.name_of(first) == slices.name_of(second) and not ("[" in first and "[" in second):
        return True
    wholes = [{key: x.identity[key] for key in x.identity if not key.startswith("part")} for x in (here, there)]
    return wholes[0] == wholes[1] and parts_meet


def _end(skip: int, take: int) -> float:
    return math.inf if take < 0 else skip + take


def cut(split: str, flag: str) -> str:
    """Return what to type, so that a set without another part has held-out examples."""
    name = slices.name_of(split) or "train"
    return (
        "name a part that is not trained on. If the set has none, cut one off: train with "
        f"--config.data.split='{name}[:90%]', and pass {flag}='{name}[90%:]'"
    )


def held_out_advice(error: str, trained: str, flag: str) -> str:
    """Return a source's error about a held-out split for our `flag`, without advice to name what is trained on."""
    what, found, advised = error.rpartition(f": {_SPLIT}")
    if found and advised == slices.name_of(trained):
        return f"{what}: {cut(trained, flag)}"
    return error.replace(_SPLIT, f"{flag}=")


def make_evaluation(config: Config, task: Task, training: Batches, progress=None) -> Evaluation | None:
    """Return the loop's evaluation; None if the task has none or the config names no split for it."""
    if not isinstance(task, Evaluated) or not config["eval"]["split"]:
        return None
    batches = make_part(config, "eval.split", config["eval"]["split"], progress, training.class_names)
    _warn_of_unseen_classes(config, training, batches)
    every = durations.to_steps(config["eval"]["every"], epoch_images=training.length, step_images=training.batch_size)
    data = {**config["data"], "split": config["eval"]["split"]}
    return Evaluation(task, batches, every, {key: data[key] for key in data if key not in _WITHOUT_EFFECT})


def make_checkup(config: Config, task: Task, training: Batches) -> Checkup:
    """Return what watches over the run.

    Raises:
        UserError: the data set has no such split as health.held_out, or it is trained on.
    """
    wanted = config["health"]
    held_out = None
    if split := wanted.get("held_out"):
        names = training.class_names
        held_out = make_part(config, "health.held_out", split, class_names=names, trained=training)
    images = {"epoch_images": training.length, "step_images": training.batch_size * training.minibatches}
    every = durations.to_steps(wanted["every"], **images) if wanted.get("every") else 0
    return Checkup(task, training, held_out, every, wanted["action"])


def _warn_of_unseen_classes(config: Config, training: Batches, evaluated: Batches) -> None:
    """Warn of classes without training images: they lower the accuracy for a reason that no curve shows."""
    seen, asked = training.classes_present(), evaluated.classes_present()
    if seen is None or asked is None or not (unseen := sorted(asked - seen)):
        return
    log.warning(
        "data.split=%s has no images for %d of the classes in eval.split=%s: %s; they cannot be learned",
        config["data"]["split"],
        len(unseen),
        config["eval"]["split"],
        listed([training.class_names[label] for label in unseen]),
    )
