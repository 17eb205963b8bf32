"""Checkpoints that are either complete or absent, verified before use, and written while training continues.

`checkpoints/<step>/` holds `arrays/` (orbax), `meta.json` (config, tree of shapes, versions, commit, data set)
and `SHA256SUMS` (try `sha256sum -c SHA256SUMS` there). A background thread writes
everything under `<step>.partial`, reads it back (every array's shape, dtype and last chunk), and only then renames it
and deletes the oldest: a folder whose name is a bare number is complete, however the process ended. Orbax restores a
flipped bit without complaint; the sums reveal it.

Orbax's CheckpointManager is not used: it deletes old checkpoints before sums of the new one could be written.

This is orbax's v1 API, which becomes the package's top level in 1.0. It also reads the folders of its v0 API, which
earlier versions of this project wrote: the files of `arrays/state/` then lie in `arrays/`.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import tensorstore
from etils import epath
from flax import serialization, traverse_util

from gormley_vision.errors import UserError
from gormley_vision.files import STORES, read_json, sync_folder, write_atomically, write_json
from gormley_vision.training.hosts import is_first, is_single_process

log = logging.getLogger(__name__)
_SUMS = "SHA256SUMS"
_NAME = "state"  # the folder in `arrays/`
ShardingOf = Callable[
    [str, tuple[int, ...]], jax.sharding.Sharding
]  # the sharding of an array with this name and shape


class _LiteralPath(type(epath.Path())):  # type: ignore[misc]
    """A path whose `glob` takes the folder's name literally: epath would make it part of orbax's search pattern."""

    def glob(self, pattern: str) -> Iterator["_LiteralPath"]:
        """Yield the files in this folder that match, whatever characters the folder's name contains."""
        for found in Path(self).glob(pattern):
            yield self / str(found.relative_to(self))


def orbax_path(path: Path) -> _LiteralPath:
    """Return the path in the form that orbax needs, so that names with special characters work.

    Raises:
        UserError: tensorstore, which writes the files, cannot handle this name.
    """
    path = path.absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{os.fsencode(path)!r} is not UTF-8, and a run's folder must be: pass another path") from None
    if "\\" in str(path) or set(STORES) & set(path.parts):
        raise UserError(f"{path} has a backslash or 'gs:' in it, which a run's folder cannot have: pass another path")
    return _LiteralPath(path)


def wait_for_all(point: str) -> None:
    """Block until every process has reached the `point` of this name, for up to a day.

    This goes through the coordinator rather than a collective: on CPUs the first collective fails if another process
    joins it more than 30 seconds later (Gloo's own limit), for instance because it decodes images.

    It is here because jax's own barrier is private, and only this module uses orbax, which has one.
    """
    if is_single_process():  # perhaps in a notebook, whose event loop is running
        return
    asyncio.run(ocp.multihost.sync_global_processes(point, operation_id="gormley_vision", timeout=24 * 3600))


class Checkpoints:
    """The checkpoints of one run: keeps the newest `keep_last`, and multiples of `keep_every` steps (0: none)."""

    def __init__(self, folder: Path, *, keep_last: int, keep_every: int) -> None:
        self.folder, self.keep_last, self.keep_every = folder, keep_last, keep_every
        self.protected = 0  # a step that is kept, too
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Copy the state and write it in the background. Returns once the state may be donated."""
        self.wait()
        partial = self.folder / f"{step}.partial"
        try:
            if is_first():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            tree = traverse_util.unflatten_dict(flat(state), sep="/")
            with jax.transfer_guard_host_to_device("allow"):  # orbax compares the processes' paths on the devices
                written = ocp.save_async(orbax_path(partial / "arrays"), tree, checkpointable_name=_NAME)
        except Exception as error:
            raise self._explained(error) from error
        document = {"step": step, **meta, "tree": describe_tree(state)}
        self._thread = threading.Thread(target=self._finish, args=(written, step, partial, document), name="checkpoint")
        self._thread.start()

    def _finish(self, written: ocp.AsyncResponse, step: int, partial: Path, document: dict[str, Any]) -> None:
        try:
            written.result()  # in all processes: orbax ends with a barrier
            if not is_first():
                return
            write_json(partial / "meta.json", document)
            sums = [f"{_sha256(path)}  {path.relative_to(partial)}\n" for path in _files(partial)]
            write_atomically(partial / _SUMS, "".join(sums).encode())
            refuse_unreadable(partial, document["tree"])
            final = self.folder / str(step)
            shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step, skipped on restore
            partial.rename(final)
            sync_folder(self.folder)
            self._prune()
        except Exception as error:  # `wait` or `check` raises it in the main thread
            self._error = error

    def wait(self) -> None:
        """Block until the last save is on disk, and raise its error if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the error of the background write, if it failed."""
        if self._error is not None:
            error, self._error = self._error, None
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        full = any(sign in str(error) for sign in ("No space left", "ENOSPC", "RESOURCE_EXHAUSTED", "File too large"))
        denied = any(sign in str(error) for sign in ("Read-only file system", "Permission denied"))
        if not (full or denied):
            return error
        steps = steps_of(self.folder)
        kept = f"the checkpoint of step {steps[-1]} is complete" if steps else "there is no earlier checkpoint"
        what = "the disk is full" if full else "the folder cannot be written"
        return UserError(f"{what}: no checkpoint in {self.folder}; {kept}. Fix that, then run the same command again")

    def _prune(self) -> None:
        for step in steps_of(self.folder)[: -self.keep_last]:
            if step != self.protected and not (self.keep_every and step % self.keep_every == 0):
                remove(self.folder / str(step))

    def close(self) -> None:
        """Wait for a write in progress, even if the run has failed since: the state being written was good."""
        if self._thread is not None:
            self._thread.join()

    def set_aside(self, after: int) -> None:
        """Rename the (damaged) checkpoints after step `after`, so that they do not count as kept."""
        for step in steps_of(self.folder):
            if step > after:
                aside = self.folder / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / str(step)).rename(aside)

    def clear_partial(self) -> None:
        """Remove the unfinished writes of a killed process. Only for the process that owns the run."""
        for leftover in self.folder.glob("*.partial"):
            if leftover.is_dir():
                shutil.rmtree(leftover)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint; it is none from the first moment on, even if the process is killed here."""
    aside = checkpoint.with_name(f"{checkpoint.name}.partial")
    checkpoint.rename(aside)
    shutil.rmtree(aside)


def newest_complete(folder: Path, at: int | None = None) -> int | None:
    """Return the newest step (not after `at`) whose files all match their sums; log damaged ones."""
    for step in reversed([step for step in steps_of(folder) if at is None or step <= at]):
        if not (damage := find_damage(folder / str(step))):
            return step
        log.warning("checkpoint %d is damaged (%s): using the one before", step, damage)
    return None


def no_checkpoint_message(workdir: Path, wanted: str = "checkpoint") -> str:
    """Return a message: the run has no such checkpoint; those that exist; which folder may be meant."""
    existing = ", ".join(map(str, steps_of(workdir / "checkpoints"))) or "none"
    near = [up for up in workdir.absolute().parents[:2] if steps_of(up / "checkpoints")]
    meant = f"; did you mean {near[0]}?" if near else "" if workdir.is_dir() else "; this folder does not exist"
    return f"no {wanted} in {workdir / 'checkpoints'} (it has: {existing}){meant}"


def steps_of(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints in a folder, ascending."""
    found = [path for path in folder.glob("*") if re.fullmatch("0|[1-9][0-9]*", path.name)]
    return sorted(int(path.name) for path in found if path.is_dir())


def find_damage(checkpoint: Path) -> str:
    """Return what is wrong with a checkpoint's files; '' if every file exists and matches its SHA-256."""
    try:
        lines = (checkpoint / _SUMS).read_text().splitlines()
    except OSError:
        return f"{_SUMS} is missing"
    except UnicodeDecodeError:  # a flipped bit in it
        return f"{_SUMS} has changed"
    if not lines or not lines[-1].endswith("  meta.json"):  # the last file in `_files`
        return f"{_SUMS} is cut short"
    for digest, _, name in (line.partition("  ") for line in lines):
        path = checkpoint / name
        if not name or not path.is_file():
            return f"{name or 'a line of ' + _SUMS} is missing"
        if _sha256(path) != digest:
            return f"{name} has changed"
    return ""  # extra files, such as .DS_Store, do no harm


def refuse_unreadable(checkpoint: Path, tree: Mapping[str, str]) -> None:
    """Read the shape, the dtype and the last chunk of each array of a checkpoint that was just written.

    Raises:
        UserError: an array is missing, different or unreadable.
    """
    folder = f"file://{quote(str(checkpoint.absolute() / 'arrays' / _NAME))}/"
    for name, description in tree.items():
        spec = {"driver": "zarr3", "kvstore": f"{folder}|ocdbt:{quote(name.replace('/', '.'))}/"}
        try:
            array = tensorstore.open(spec, open=True, read=True).result()
            found = _describe_parts(array.dtype.name, array.shape)
            if 0 not in array.shape:
                array[tuple(side - 1 for side in array.shape)].read().result()
        except Exception as error:  # the type depends on what is missing
            found = str(error).partition(" [tensorstore_spec")[0]
        if found != description:
            raise UserError(f"{checkpoint} cannot be read back: {name} should be {description}, but is {found}")


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint's meta.json."""
    return read_json(checkpoint / "meta.json")


def restore(checkpoint: Path, like: Any, sharding_of: ShardingOf) -> Any:
    """Restore a checkpoint's state in the structure of `like` (abstract or not), sharded as `sharding_of` says.

    Raises:
        UserError: names, shapes or dtypes differ. Lists the missing, extra and changed ones.
    """
    _refuse_differences(checkpoint, read_meta(checkpoint)["tree"], describe_tree(like))
    return merge(like, read_parts(checkpoint, frozenset(), sharding_of), frozenset(), checkpoint)


def read_parts(checkpoint: Path, parts: frozenset[str], sharding_of: ShardingOf) -> dict[str, jax.Array]:
    """Read {name: array} of everything below nodes named in `parts`, or of the entire state if `parts` is empty."""
    tree = _chosen(read_meta(checkpoint)["tree"], parts)
    return _read_arrays(checkpoint, {name: _parse(name, text, sharding_of) for name, text in tree.items()})


def merge(like: Any, arrays: Mapping[str, jax.Array], parts: frozenset[str], checkpoint: Path) -> Any:
    """Return `like` with everything below nodes named in `parts` replaced by `arrays`.

    Raises:
        UserError: names, shapes or dtypes differ from those of `like`. Lists them.
    """
    _refuse_differences(
        checkpoint, {name: _describe(x) for name, x in arrays.items()}, _chosen(describe_tree(like), parts)
    )
    leaves = traverse_util.flatten_dict(serialization.to_state_dict(like), keep_empty_nodes=True, sep="/")
    return serialization.from_state_dict(like, traverse_util.unflatten_dict(leaves | arrays, sep="/"))


def _chosen(tree: Mapping[str, Any], parts: frozenset[str]) -> dict[str, Any]:
    return {name: leaf for name, leaf in tree.items() if not parts or parts & set(name.split("/"))}


def _refuse_differences(checkpoint: Path, saved: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    if differences := compare_trees(saved, wanted):
        raise UserError(f"{checkpoint} does not fit this code and config:\n  " + "\n  ".join(differences))


def _read_arrays(checkpoint: Path, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Read only these arrays of a checkpoint."""
    tree = traverse_util.unflatten_dict(abstract, sep="/")
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        arrays = ocp.load(orbax_path(checkpoint / "arrays"), tree)
    return traverse_util.flatten_dict(arrays, sep="/")


def flat(state: Any) -> dict[str, Any]:
    """Return {'generator/variables/params/Dense_0/kernel': leaf, ...}, without empty nodes."""
    return traverse_util.flatten_dict(serialization.to_state_dict(state), sep="/")


def describe_tree(state: Any) -> dict[str, str]:
    """Return {'generator/variables/params/Dense_0/kernel': 'float32[100,6272]', ...}."""
    return {name: _describe(x) for name, x in flat(state).items()}


def _describe(x: Any) -> str:
    return _describe_parts(x.dtype, x.shape)


def _describe_parts(dtype: Any, shape: Sequence[int]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def compare_trees(saved: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Return one line for each name that is missing on one side or differs in shape or dtype."""
    lines = [f"missing in the checkpoint: {name} {wanted[name]}" for name in wanted if name not in saved]
    lines += [f"extra in the checkpoint: {name} {saved[name]}" for name in saved if name not in wanted]
    both = [name for name in wanted if name in saved and saved[name] != wanted[name]]
    return lines + [f"differs: {name} is {saved[name]} in the checkpoint, {wanted[name]} here" for name in both]


def digest(checkpoint: Path) -> str:
    """Return one SHA-256 over names, dtypes, shapes and bytes of the full train state, however it is stored."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    tree = {name: _parse(name, text, lambda *_: here) for name, text in read_meta(checkpoint)["tree"].items()}
    total = hashlib.sha256()
    for name, array in sorted(_read_arrays(checkpoint, tree).items()):
        value = np.asarray(array)
        total.update(json.dumps([name, str(value.dtype), value.shape]).encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _parse(name: str, text: str, sharding_of: ShardingOf) -> jax.ShapeDtypeStruct:
    dtype, _, sides = text.rstrip("]").partition("[")
    shape = tuple(int(n) for n in sides.split(",") if n)
    return jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=sharding_of(name, shape))


def _files(folder: Path) -> list[Path]:
    """Return a checkpoint's files, meta.json last. Hidden files belong to the system (.nfs*, .DS_Store)."""
    parts = [path for path in (folder / "arrays").rglob("*") if path.is_file() and not path.name.startswith(".")]
    return [*sorted(parts), folder / "meta.json"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
