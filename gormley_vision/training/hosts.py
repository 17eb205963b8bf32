"""Several processes as one run: joining them, which one writes, and decisions that all must make alike.

Every process runs the same program on its own devices and its own columns of each batch. Only the first writes logs,
pictures and a checkpoint's metadata; each writes its shards of the arrays. All processes share the run's folder.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gormley_vision.errors import UserError


def initialize(coordinator: str, processes: int, process: int, heartbeat: int) -> None:
    """Join the other processes of this run, if there are others.

    They are given by `coordinator` ('HOST:PORT' of process 0), `processes` and `process`, or, without a coordinator, by
    the environment variables of a TPU pod, Slurm or Open MPI, which `jax.distributed.initialize` reads. If a process
    stops responding, or fails, the runtime ends all of them within `heartbeat` seconds, plus one or two to notice and
    to abort.

    Raises:
        UserError: flags that contradict each other.
    """
    connect = partial(
        jax.distributed.initialize, heartbeat_timeout_seconds=heartbeat, shutdown_timeout_seconds=heartbeat
    )
    if not coordinator:
        if processes != 1 or process:
            raise UserError(f"--processes={processes} --process={process} need --coordinator=HOST:PORT of process 0")
        try:
            connect()
        except ValueError as error:
            if "coordinator_address" not in str(error):  # else: none of the three, so this process is the only one
                raise
        return
    if not 0 <= process < processes:
        raise UserError(f"--process={process} is not between 0 and {processes - 1} (--processes={processes})")
    connect(coordinator, processes, process)


def is_first() -> bool:
    """Return whether this is the process that writes for all."""
    return jax.process_index() == 0


def is_single_process() -> bool:
    """Return whether there is only this process."""
    return jax.process_count() == 1


def put_global(arrays: Any, sharding: NamedSharding) -> Any:
    """Make global arrays from this process' part: its columns of a sharded array, all of a replicated one."""
    with jax.transfer_guard_host_to_device("allow"):  # this is the explicit way, though jax counts it as implicit
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), arrays)


def broadcast_from_first(value: int) -> int:
    """Return the first process' value in every process. A collective: all must call it."""
    return value if is_single_process() else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def stop_vote(mesh: Mesh) -> Callable[[int], int]:
    """Return a function that every process calls at every step with the signal that it received (0 for none).

    It returns the same signal in all of them, so that they save at the same step: with a single process its own, at
    once; else the highest signal of the previous call, so that no device waits for the answer.
    """
    if is_single_process():
        return lambda signal: signal
    everywhere = NamedSharding(mesh, PartitionSpec(mesh.axis_names))  # one vote for each device
    highest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
    pending: list[jax.Array] = []

    def vote(signal: int) -> int:
        pending.append(highest(put_global(np.full(len(mesh.local_devices), signal, np.int32), everywhere)))
        return int(pending.pop(0)) if len(pending) > 1 else 0

    return vote
