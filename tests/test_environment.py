"""Devices and variables of the environment: what cannot be is a line, and what is not here says nothing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gormley_vision import libtpu
from gormley_vision.errors import UserError
from gormley_vision.run import fitting, start_jax

ROOT = Path(__file__).parents[1]
DIGEST = ("scripts/digest.py", "--workdir=tests/golden/run_gan")


def program(*words: str, **environment: str) -> subprocess.CompletedProcess:
    alone = {
        key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS", *libtpu.QUIET)
    }
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=alone | environment, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("XLA_FLAGS", "--nonsense", "error: XLA_FLAGS=--nonsense: Unknown flag in XLA_FLAGS: --nonsense; fix or"),
        ("XLA_FLAGS", "--xla_force_host_platform_device_count=a", "Couldn't interpret value a"),
        ("JAX_PLATFORMS", "CPU", "error: JAX_PLATFORMS=CPU: "),
        ("JAX_PLATFORMS", "tpu", "error: JAX_PLATFORMS=tpu: "),
        ("JAX_PLATFORMS", "cuda", "error: JAX_PLATFORMS=cuda: "),
        ("JAX_DISABLE_JIT", "1", "error: JAX_DISABLE_JIT is set, but training compiles its steps: unset it"),
    ],
)
def test_a_variable_with_which_nothing_can_run_is_one_line(name, value, message):
    if name == "JAX_PLATFORMS" and value in {device.platform for device in jax.devices()}:
        pytest.skip("it is here")
    done = program(*DIGEST, **{name: value})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line


def test_a_device_that_is_not_here_is_told(monkeypatch):
    def none_here():
        raise AssertionError  # as jax does for cuda

    monkeypatch.setattr(jax, "devices", none_here)
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=r"JAX_PLATFORMS=cuda: jax finds no such device; unset it"):
        start_jax()
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(AssertionError):  # of which the user said nothing
        start_jax()


@pytest.mark.parametrize("text", ["RESOURCE_EXHAUSTED: 8 GiB", "INTERNAL: Out of memory allocating 8 bytes"])
def test_a_full_memory_says_what_would_fit(text):
    config = {"data": {"batch_size": 64}, "accumulate": 2, "vit": {"remat": False}, "other": {"remat": True}}
    with pytest.raises(UserError, match="device is full") as refusal, fitting(config):
        raise jax.errors.JaxRuntimeError(text)
    for words in ("data.batch_size=32", "accumulate=4", "vit.remat=true", "scripts/plan.py"):
        assert words in str(refusal.value)
    assert "other" not in str(refusal.value)
    with pytest.raises(jax.errors.JaxRuntimeError), fitting(config):
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault of ours")


def test_tpus_library_is_quiet_where_there_is_no_tpu_alone(tmp_path, monkeypatch):
    for name in libtpu.QUIET:
        monkeypatch.delenv(name, raising=False)
    for chip in ("a/dev/accel0", "b/dev/vfio/0", "c/sys/bus/pci/devices/0000:00:05.0"):
        (tmp_path / chip).mkdir(parents=True)
    (tmp_path / chip / "vendor").write_text("0x1ae0\n")
    for machine in "abc":
        libtpu.quieten(tmp_path / machine)
    assert not any(name in os.environ for name in libtpu.QUIET)
    (tmp_path / chip / "device").write_text("0x0042\n")  # Google's too, and no TPU
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "mine")
    libtpu.quieten(tmp_path / "c")
    assert {name: os.environ[name] for name in libtpu.QUIET} == libtpu.QUIET | {"TPU_WORKER_HOSTNAMES": "mine"}
    for name in libtpu.QUIET:
        monkeypatch.delenv(name)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason='pip install -e ".[plan]"')
@pytest.mark.parametrize(
    "words",
    [
        DIGEST,
        ("-c", "import gormley_vision; print(gormley_vision.restore('tests/golden/run_gan').step)"),
        ("scripts/plan.py", "--config=configs/vit_mnist.py:smoke", "--config.data.source=fake", "--config.mesh.data=1"),
    ],
)
def test_no_program_tells_of_tpus_library_where_there_is_no_tpu(words, tmp_path):
    done = program(*words, XDG_CACHE_HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "tpu" not in done.stderr.lower()
    assert "WARNING" not in done.stderr
