"""What a training step needs on given devices: the real step, compiled but not run."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from gormley_vision import task_modules
from gormley_vision.config import step_images
from gormley_vision.data.batches import Batches
from gormley_vision.data.features import Description
from gormley_vision.experiment import make_task, mesh_of
from gormley_vision.mesh_rules import parse_rules
from gormley_vision.planning.chips import Chip
from gormley_vision.planning.cost import Cost, cost_of
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training.loop import Step
from gormley_vision.training.sharding import Shardings

Config = Mapping[str, Any]
GIB = 2**30
# By the first of these nodes in an array's name; everything else belongs to the optimizer.
_KINDS = {"ema": "averages", "variables": "parameters", "params": "parameters"}


def plan(config: Config, devices: Sequence[jax.Device], chip: Chip, data: Description | Batches) -> dict[str, Any]:
    """Compile the config's step for these devices, and return a report in plain JSON.

    Args:
        chip: rates and memory of one device.
        data: the data set, or its description if it is not available: examples are then assumed to be streamed.

    Returns:
        'fits', 'memory' (bytes per device by kind), and, if it fits, 'step' (FLOPs, bytes, seconds) and 'collectives'.
    """
    mesh = mesh_of(config, devices)
    images = step_images(config)
    lowered, memory = lower(config, mesh, data)
    report: dict[str, Any] = {
        "device": devices[0].device_kind,
        "devices": mesh.size,
        "chips": -(-mesh.size // chip.devices_per_chip),
        "mesh": dict(mesh.shape),
        "images": images,
        "epoch_images": data.length,
        "capacity": chip.memory,
    }
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return report | {"fits": False, "memory": memory, "needed": _needed(str(error)), "error": str(error)}
    analysis = compiled.memory_analysis()
    assert analysis is not None
    memory |= {
        "padding": analysis.argument_size_in_bytes - sum(memory.values()),
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "activations and temporaries": analysis.temp_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }
    cost = cost_of(compiled.as_text() or "")
    needed = sum(memory.values())
    return report | {
        "fits": needed <= chip.memory,
        "memory": memory,
        "needed": needed,
        "step": _step(cost, chip, images),
        "collectives": [dataclasses.asdict(c) | {"wire_bytes": c.wire_bytes} for c in cost.collectives],
        "unknown_loops": cost.unknown_loops,
        "operations": [
            {"place": operation.place, "kind": operation.kind, "seconds": operation.cycles / chip.clock}
            for operation in cost.operations[:10]
        ],
        "compiler_flops": (compiled.cost_analysis() or {}).get("flops", 0.0),  # counts each loop's body once
    }


def lower(
    config: Config, mesh: jax.sharding.Mesh, data: Description | Batches
) -> tuple[jax.stages.Lowered, dict[str, int]]:
    """Return the step's program for this mesh, and {kind: bytes on one device} of its arguments."""
    shardings = Shardings(mesh, parse_rules(config["mesh"]["rules"]))
    task = make_task(config, data.description if isinstance(data, Batches) else data)

    def placed(x: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    key = placed(jax.eval_shape(lambda: jax.random.key(0)), shardings.replicated)
    named = jax.eval_shape(task.init, key)
    state_shardings = shardings.tree(named)
    state = jax.tree.map(placed, nn.unbox(named), state_shardings)
    fetch: Callable
    resident: Any
    batch: Any
    if isinstance(data, Batches):
        fetch, resident, batch = data.fetch, data.resident, data.read(0)
    else:
        lead = (task_modules.find(config["task"]).minibatches(config), config["data"]["batch_size"])
        fetch, resident = _streamed, {}
        batch = {name: jax.ShapeDtypeStruct((*lead, *f.shape), f.dtype) for name, f in data.features.items()}
    resident = jax.tree.map(lambda x: placed(x, shardings.replicated), resident)
    batch = jax.tree.map(lambda x: placed(x, shardings.batch), batch)
    memory = {"parameters": 0, "averages": 0, "optimizer": 0}
    for name, leaf in ckpt.flat(state).items():
        kind = next((kind for node, kind in _KINDS.items() if node in name.split("/")), "optimizer")
        memory[kind] += _local_bytes(leaf)
    memory["data"] = sum(map(_local_bytes, [*resident.values(), *batch.values()]))
    return Step(task, fetch, state_shardings, shardings).lower(state, resident, batch, key), memory


def _streamed(_: Any, batch: Any) -> Any:
    """Return the batch: `Batches.fetch` for examples that are not kept on the device."""
    return batch


def _local_bytes(x: jax.ShapeDtypeStruct) -> int:
    assert x.sharding is not None
    return int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize


def _needed(message: str) -> int:
    """Return the bytes that the program needs, from the compiler's error: '... temporaries (1.50T) exceeds ...'."""
    sizes = re.findall(r"([\d.]+)([KMGT])(?:i?B)?\b", message)
    return max((int(float(n) * 1024 ** ("KMGT".index(unit) + 1)) for n, unit in sizes), default=0)


def _step(cost: Cost, chip: Chip, images: int) -> dict[str, float]:
    """Return figures of one step on one device. Seconds are lower bounds: no device reaches its peak."""
    wire = sum(collective.wire_bytes for collective in cost.collectives)
    seconds = {
        "products": cost.flops / chip.flops,
        "memory": cost.hbm_bytes / chip.hbm_bandwidth,
        "links": wire / chip.link_bandwidth,
    }
    bound = max(seconds, key=lambda part: seconds[part])
    estimate = cost.cycles / chip.clock  # 0 if the compiler has no estimate
    copies = sum(operation.cycles for operation in cost.operations if operation.kind == "copy")
    # Kernels are not in the compiler's estimate; no less than their products is added.
    likely = max(estimate + cost.kernel_flops / chip.flops, seconds["links"]) if estimate else seconds[bound]
    return {
        "flops": cost.flops,
        "hbm_bytes": cost.hbm_bytes,
        "wire_bytes": wire,
        **{f"seconds_of_{part}": value for part, value in seconds.items()},
        "seconds_at_least": seconds[bound],
        "seconds_by_the_compiler": estimate,
        "share_of_copies": copies / cost.cycles if cost.cycles else 0.0,
        "kernels": cost.kernels,
        "kernel_flops": cost.kernel_flops,
        "share_of_peak": cost.model_flops / chip.flops / likely,
        "images_per_second": images / likely,
    }


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the config with these overrides, {'section.key': value}."""
    copy = ml_collections.ConfigDict(config).lock()
    copy.update_from_flattened_dict(overrides)
    return copy.to_dict()
