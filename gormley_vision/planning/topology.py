"""The devices to plan for: those of a TPU topology that need not be available, or this machine's."""

import importlib.util
import os
import time

import jax
import jax.numpy as jnp

from gormley_vision.errors import UserError
from gormley_vision.libtpu import QUIET
from gormley_vision.planning.chips import CHIPS, Chip


def devices_of(topology: str) -> list[jax.Device]:
    """Return the devices of 'v5e:4x4', 'v5p:4x4x8', ...: descriptions that a program can be compiled for.

    Raises:
        UserError: there is no such topology, or libtpu is not installed.
    """
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise UserError('planning for a TPU needs its compiler: pip install -e ".[plan]"')
    os.environ.update(QUIET)  # libtpu is only used for its compiler
    jax.config.update("jax_platforms", "cpu")
    # A v4 chip's two cores are one device only in this mode, which is how Cloud TPU runs it.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--topology={topology}: {str(error).splitlines()[0]}; write GENERATION:CHIPS, as in v5e:4x4, v6e:8x16 "
            "(2-D) or v4:4x4x4, v5p:4x4x8, tpu7x:2x2x2 (3-D), or 'here'"
        ) from error


def chip_of(device: jax.Device) -> Chip:
    """Return the vendor's rates of a known chip; measure those of any other device, in seconds."""
    return CHIPS.get(device.device_kind) or measured(device)


def measured(device: jax.Device) -> Chip:
    """Measure a 2048 x 2048 float32 product and a copy on the default device, and its memory.

    Devices that share a machine's cores (virtual ones) share all three.
    """
    on_cpu = device.platform == "cpu"
    share = len(jax.local_devices()) if on_cpu else 1
    square, long = jnp.ones((2048, 2048)), jnp.ones(1 << 26)
    product = 2 * 2048**3 / _seconds(jax.jit(lambda x: x @ x), square)
    copy = 2 * long.nbytes / _seconds(jax.jit(jnp.negative), long)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = machine / share if on_cpu else device.memory_stats()["bytes_limit"]
    return Chip(product / share, copy / share, copy / share, memory / 2**30, 1)


def _seconds(function, argument: jax.Array) -> float:
    """Return the best time of eight calls."""
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - began)
    return min(seconds)
