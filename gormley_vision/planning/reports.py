"""Reports on a config for this machine or for a TPU topology, with what would make it fit."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax

from gormley_vision import experiment, task_modules
from gormley_vision.config import flatten
from gormley_vision.data.features import Description
from gormley_vision.planning import topology
from gormley_vision.planning.plan import Config, plan, with_overrides
from gormley_vision.run import start_jax

log = logging.getLogger(__name__)
Report = dict[str, Any]
ReportOf = Callable[[Config], Report]

# Classes and training images, so that the data need not be available.
_KNOWN = {"imagenet2012": (1000, 1281167), "cifar10": (10, 50000), "cifar100": (100, 50000), "mnist_5k": (10, 5000)}
_ASSUMED = (10, 50000)


def report_here(config: Config) -> Report:
    """Return `plan` of a config on this machine's devices, with its data."""
    start_jax()  # reuses compiled steps of training
    devices = jax.devices()
    return plan(config, devices, topology.chip_of(devices[0]), experiment.make_batches(config))


def reporter(config: Config, place: str, classes: int = 0, epoch_images: int = 0) -> ReportOf:
    """Return a function from a variant of `config` to its report.

    Args:
        place: 'here', or a TPU topology.
        classes: number of classes on a topology, if the data set is not a known one.
        epoch_images: number of its training images.
    """
    if place == "here":
        return report_here
    devices, data = topology.devices_of(place), described_data(config, classes, epoch_images)

    def report_there(config: Config) -> Report:
        log.info("compiling ...")  # half a minute for a small network, minutes for a large one
        return plan(config, devices, topology.chip_of(devices[0]), data)

    return report_there


def described_data(config: Config, classes: int, epoch_images: int) -> Description:
    """Describe the data set as the task would, from known numbers or assumed ones; else from the data set itself."""
    data = config["data"]
    if task_modules.find(config["task"]).described is task_modules.images and "image_size" not in data:
        return experiment.make_batches(config).description
    known = _KNOWN.get(data["name"].partition(":")[0] or data["source"])
    known_classes, known_images = known or _ASSUMED
    names = tuple(map(str, range(classes or known_classes)))
    found = experiment.described(config, names, epoch_images or known_images)
    assumed = [f"{known_classes} classes (--classes)"] if found.class_names and not classes else []
    assumed += [] if epoch_images else [f"{known_images:,} examples per epoch (--epoch_images)"]
    if known is None and assumed:
        log.info("assumed: %s", " and ".join(assumed))
    return found


def with_advice(config: Config, report_of: ReportOf) -> Report:
    """Return a config's report; if it does not fit, with 'remedies', else with activations apart from temporaries."""
    report = report_of(config)
    if report["fits"]:
        if half := halved(config, report["devices"]):
            smaller = report_of(with_overrides(config, half))
            report["memory"] = split_memory(report["memory"], smaller["memory"])
        return report
    tried = []
    for overrides in remedies(config, report["devices"]):
        found = report_of(with_overrides(config, overrides))
        tried.append({"overrides": overrides, "needed": found["needed"], "fits": found["fits"]})
    return report | {"remedies": sorted(tried, key=lambda remedy: remedy["needed"])}


def summed(collectives: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum the number and GB of each kind of collective."""
    kinds = sorted({collective["kind"] for collective in collectives})
    by_kind = {kind: [c for c in collectives if c["kind"] == kind] for kind in kinds}
    return [
        {"kind": kind, "times": sum(c["times"] for c in own), "wire_bytes": sum(c["wire_bytes"] for c in own) / 1e9}
        for kind, own in by_kind.items()
    ]


def split_memory(memory: Mapping[str, int], half: Mapping[str, int]) -> dict[str, int]:
    """Split the temporaries of `memory` into activations, which grow with the batch, and the rest.

    Activations are kept from the forward for the backward pass; the rest are gathered parameters and gradients. The
    compiler does not separate them, but the memory at half of the batch, `half`, does.
    """
    both = "activations and temporaries"
    activations = min(max(2 * (memory[both] - half[both]), 0), memory[both])
    rest = {key: value for key, value in memory.items() if key != both}
    return rest | {"activations": activations, "temporaries": memory[both] - activations}


def halved(config: Config, devices: int) -> dict[str, Any] | None:
    """Return the override that halves the batch, if the half divides over the devices."""
    batch, batch_devices = config["data"]["batch_size"], devices // config["mesh"]["tensor"]
    return {"data.batch_size": batch // 2} if batch % (2 * config["accumulate"] * batch_devices) == 0 else None


def remedies(config: Config, devices: int) -> list[dict[str, Any]]:
    """Return overrides, each of which may make a step fit."""
    found: list[dict[str, Any]] = []
    half, batch_devices = halved(config, devices), devices // config["mesh"]["tensor"]
    found += [{key: True} for key, value in flatten(config).items() if key.endswith(".remat") and value is False]
    if half:
        found.append({"accumulate": 2 * config["accumulate"]})
    if config["mesh"]["fsdp"] < batch_devices:
        found.append({"mesh.fsdp": batch_devices, "mesh.data": 1})
    if half:
        found.append(half)
    if config["compute_dtype"] == "float32":
        found.append({"compute_dtype": "bfloat16"})
    return found
