"""The start of a process: a new run, one from another run's weights, or one that continues where it was stopped."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from gormley_vision import durations
from gormley_vision.config import changed_keys, upgraded
from gormley_vision.data.batches import Batches
from gormley_vision.data.features import from_json, to_json, tokenizer_of
from gormley_vision.data.sources import changed_files
from gormley_vision.errors import UserError
from gormley_vision.files import read_json, user_path
from gormley_vision.mesh_rules import parse_rules
from gormley_vision.randomness import named_key, run_key
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.checkup import rollbacks_of
from gormley_vision.training.environment import describe_environment, source_commit
from gormley_vision.training.hosts import broadcast_from_first, is_first, put_global
from gormley_vision.training.records import RECORDS, unlogged_figures
from gormley_vision.training.sharding import Shardings, make_mesh
from gormley_vision.training.task import Task, Transferred, first_state

log = logging.getLogger(__name__)
WEIGHTS = frozenset({"variables", "ema"})  # the nodes of a state that `init_from` loads


@dataclasses.dataclass(frozen=True)
class Plan:
    """The config's durations in steps; 0 is never."""

    total: int
    stop_after: int
    log_every: int
    samples_every: int
    checkpoint_every: int
    keep_every: int

    @classmethod
    def of(cls, config: Mapping[str, Any], batches: Batches) -> "Plan":
        """Convert the config's durations, by the images in an epoch and in a step.

        Raises:
            UserError: the data set is smaller than a batch, or the duration shorter than a step.
        """

        def steps(duration: str) -> int:
            images = batches.batch_size * batches.minibatches
            return durations.to_steps(duration, epoch_images=batches.length, step_images=images)

        plan = cls(
            total=steps(config["duration"]),
            stop_after=steps(config["stop_after"]),
            log_every=steps(config["log"]["every"]),
            samples_every=steps(config["log"]["samples_every"]),
            checkpoint_every=steps(config["checkpoint"]["every"]),
            keep_every=steps(config["checkpoint"]["keep_every"]),
        )
        if batches.length < batches.batch_size:
            raise UserError(
                f"the data set has {batches.length} examples, fewer than one batch of {batches.batch_size}: "
                f"--config.data.batch_size={batches.length}"
            )
        if plan.total < 1:
            raise UserError(f"duration={config['duration']!r} is less than one step: pass --config.duration='1 epochs'")
        return plan

    @property
    def end(self) -> int:
        """The step at which this process ends."""
        return min(self.total, self.stop_after or self.total)


@dataclasses.dataclass
class Run:
    """Everything that the loop needs before its first step."""

    workdir: Path
    plan: Plan
    start: int  # steps done
    shardings: Shardings
    state: Any
    state_shardings: Any
    resident: dict[str, jax.Array]
    key: jax.Array
    meta: dict[str, Any]
    unlogged: dict[str, float]  # metrics of step `start` if a signal interrupted its evaluation; else {}


def prepare(task: Task, batches: Batches, config: Mapping[str, Any], workdir: Path, at: int | None = None) -> Run:
    """Build the run, at its newest complete checkpoint (or the newest not after step `at`), or at the start.

    Raises:
        UserError: the folder, the config or the data set does not allow it. Says why, and what to do.
    """
    plan = Plan.of(config, batches)
    mesh = make_mesh(config["mesh"], batches.batch_size, config["accumulate"])
    shardings = Shardings(mesh, parse_rules(config["mesh"]["rules"]))
    rollbacks = len(rollbacks_of(workdir))
    meta = {
        "config": config,
        "data": {
            "sha256": batches.sha256,
            "length": batches.length,
            "image_shape": list(batches.image_shape),
            "class_names": list(batches.class_names),
            "features": to_json(batches.features),
        },
        "environment": describe_environment(mesh),
        "rollbacks": rollbacks,
        "commit": source_commit(),
    }
    key = jax.jit(_key, static_argnums=(0, 1), out_shardings=shardings.replicated)(config["seed"], rollbacks)
    named = jax.eval_shape(task.init, key)
    shapes, state_shardings = nn.unbox(named), shardings.tree(named)
    if ckpt.describe_tree(shapes).get("step") != "int32[]":
        raise UserError("the state that the task's init returns has no `step`, an int32 [] that counts from 0")
    folder = workdir / "checkpoints"
    ckpt.wait_for_all("data")
    newest = ckpt.newest_complete(folder, at) if is_first() else None
    step = None if (found := broadcast_from_first(-1 if newest is None else newest)) < 0 else found
    if step is None and at is None and (damaged := ckpt.steps_of(folder)):
        raise UserError(
            f"every checkpoint in {folder} is damaged ({', '.join(map(str, damaged))}), and starting over would "
            f"overwrite this run: move {workdir} away, or use another --workdir"
        )
    if step is None and at is None:
        refuse_to_overwrite(workdir, config)
    unlogged: dict[str, float] = {}
    if step is not None:
        saved = ckpt.read_meta(folder / str(step))
        refuse_changes(saved, meta, lambda: _changed_files(workdir, batches))
        unlogged = unlogged_figures(workdir, step, saved) if at is None else {}
        by_name = ckpt.flat(state_shardings)
        state = ckpt.restore(folder / str(step), shapes, lambda name, _: by_name[name])
    else:
        # Created sharded: no device ever holds all of it.
        state = jax.jit(partial(first_state, task), out_shardings=state_shardings)(key)
        if config["init_from"]:
            state = jax.device_put(
                adopt_weights(task, state, config, shardings, tokenizer_of(batches.features)), state_shardings
            )
    resident = put_global(batches.resident, shardings.replicated)
    return Run(workdir, plan, step or 0, shardings, state, state_shardings, resident, key, meta, unlogged)


def _key(seed: int, rollbacks: int) -> jax.Array:
    """Return the run's key, which is another one after each roll-back."""
    key = run_key(seed)
    return named_key(key, "rollback", rollbacks) if rollbacks else key


def refuse_to_overwrite(workdir: Path, config: Mapping[str, Any]) -> None:
    """Refuse to start in a folder that has no checkpoints but records of something other than this config's run.

    Raises:
        UserError: they belong to another config, or the folder is not a run's.
    """
    existing = [name for name in RECORDS if (workdir / name).exists()]
    if not existing:
        return
    instead = "move them away, or pass another --workdir"
    if not (workdir / "config.json").is_file():
        raise UserError(
            f"{workdir} has {', '.join(existing)} but is not a run's folder (it has no config.json): {instead}"
        )
    if changes := changed_keys(read_json(workdir / "config.json"), config):
        raise UserError(
            f"{workdir} has {', '.join(existing)} of a run without checkpoints that had another config:\n  "
            + "\n  ".join(changes)
            + f"\n{instead}"
        )
    if not rollbacks_of(workdir):  # else it was said that the run goes back to its start
        log.warning("%s has no checkpoint: the run starts over and overwrites its %s", workdir, ", ".join(existing))


def refuse_changes(saved: Mapping[str, Any], here: Mapping[str, Any], files: Callable[[], str]) -> None:
    """Refuse to resume with another config or data set; warn if results may differ in their last bits.

    Raises:
        UserError: the config or the data set differs. Lists the differences.
    """
    if changes := changed_keys(saved["config"], here["config"]):
        raise UserError(
            "this run was started with another config:\n  "
            + "\n  ".join(changes)
            + "\nuse another --workdir, or --config.init_from to start from its weights"
        )
    old = saved["data"]
    new = {key: value for key, value in here["data"].items() if key in old}  # earlier versions saved fewer keys
    if len({config["data"]["placement"] == "stream" for config in (upgraded(saved["config"]), here["config"])}) == 2:
        log.warning(
            "data.placement changed to or from 'stream': whether the data set is the same is only checked by size"
        )
        new = new | {"sha256": old["sha256"]}  # one hashes decoded pixels, the other the files' names, sizes and times
    if old != new:
        raise UserError(
            f"the data set has changed since the checkpoint: {_differences(old, new)}{files()}; "
            "restore it, or use another --workdir"
        )
    if saved["environment"] != here["environment"]:
        log.warning(
            "continuing with the same batches and noise, but results may differ in their last bits: %s",
            _differences(saved["environment"], here["environment"]),
        )


def _changed_files(workdir: Path, batches: Batches) -> str:
    """Name the files of the data set that changed since the first step; '' if that is not known."""
    saved = workdir / "data.json"
    files = changed_files(read_json(saved), batches.identity) if saved.exists() else []
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"; other files, sizes or times: {', '.join(files[:3])}{more}" if files else ""


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)
    )


def adopt_weights(task: Task, state: Any, config: Mapping[str, Any], shardings: Shardings, tokenizer: str = "") -> Any:
    """Return `state` with the variables and averages of init_from's newest checkpoint; optimizers stay fresh.

    The task's `transfer` makes the other run's weights fit: a new head, another resolution, classes by name.

    Raises:
        UserError: init_from is not a run's folder, its weights do not fit, or they are for another `tokenizer`.
    """
    source = user_path(config["init_from"])
    if not isinstance(task, Transferred):
        raise UserError("this task cannot start from another run's weights: pass --config.init_from=''")
    folder = source / "checkpoints"
    step = ckpt.newest_complete(folder)
    if step is None:
        raise UserError(f"init_from={source}: {ckpt.no_checkpoint_message(source)}")
    log.info("starting from the weights of %s, step %d", source, step)
    checkpoint = folder / str(step)
    meta = ckpt.read_meta(checkpoint)
    theirs = tokenizer_of(from_json(meta["data"].get("features") or {}))
    if theirs and tokenizer and theirs != tokenizer:  # the same numbers would mean other tokens
        raise UserError(f"init_from={source} has another tokenizer: --config.data.tokenizer={source}/tokenizer.json")
    # The other run's shapes may not fit mesh.rules; without names only `fsdp` splits an axis, if one divides.
    weights = ckpt.read_parts(checkpoint, WEIGHTS, lambda _, shape: shardings.sharding_of(shape))
    classes = tuple(meta["data"]["class_names"])
    weights = task.transfer(weights, state, config=upgraded(meta["config"]), class_names=classes)
    try:
        return ckpt.merge(state, weights, WEIGHTS, checkpoint)
    except UserError as error:
        changes = changed_keys(meta["config"], {**config, "init_from": meta["config"]["init_from"]})
        told = ["of that run's config to this one:", *changes] if changes else []
        raise UserError("\n  ".join([f"init_from: {error}", *told])) from None
