"""Runs for the tests of the loop: in this process on one device, or as separate processes."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from gormley_vision import experiment
from gormley_vision.config import default_config, reset_unread, shrink, validate
from gormley_vision.data.batches import Batches
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training import loop, start

ROOT = Path(__file__).parents[2]
SMALL = {"data.source": "fake", "data.image_size": 16, "mesh.data": 1}


class Lab:
    """Tiny runs in this process. All share this test session's caches of decoded data and compiled programs."""

    # A game with everything that has a state or draws of its own.
    everything = {  # noqa: RUF012
        "gan__conditional": True,
        "gan__objective": "relativistic_paired",
        "gan__r1": 1.0,
        "gan__r2": 1.0,
        "gan__gradient_penalty": 1.0,
        "gan__augment": "bgc,cutout",
        "gan__augment_target": 0.6,
        "gan__schedules": "gan.r1 = 0: 1, 256: 0.1 linear",
        "generator__conditioning": "batch_norm",
        "discriminator__conditioning": "projection",
        "discriminator__norm": "none",
        "discriminator__spectral_norm": True,
        "generator__width": 8,
        "discriminator__width": 8,
    }

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def config(self, task: str = "classification", **overrides) -> dict:
        """Return the smoke config of a task as `train.py` would pass it; in keys, '__' stands for '.'."""
        config = shrink(default_config(task))
        flat = SMALL | {"data.cache_dir": str(self.cache / "data")}
        flat |= {"vit.patch_size": 8} if task == "classification" else {"log.samples": 4}
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        config.update_from_flattened_dict(flat | given)
        reset_unread(config, given)
        validate(config.to_dict())
        return config.to_dict()

    def open(self, config: dict) -> tuple:
        """Return the task and the batches of a config."""
        batches = experiment.make_batches(config)
        return experiment.make_task(config, batches.description), batches

    def prepare(self, config: dict, workdir: Path) -> tuple[start.Run, Batches]:
        """Return everything that the loop needs before its first step, and its data."""
        return self.compile(config, workdir)[:2]

    def compile(self, config: dict, workdir: Path) -> tuple[start.Run, Batches, loop.Step]:
        """Return what `prepare` does, and the step as the loop compiles it."""
        workdir.mkdir(parents=True, exist_ok=True)
        task, batches = self.open(config)
        run = start.prepare(task, batches, config, workdir)
        return run, batches, loop.Step(task, batches.fetch, run.state_shardings, run.shardings)

    def train(self, config: dict, workdir: Path, wrap=lambda task: task, profile: bool = False) -> int:
        """Train as `run` does inside the lock and the log; `wrap` may replace the task."""
        workdir.mkdir(parents=True, exist_ok=True)
        task, batches = self.open(config)
        return loop.train(wrap(task), batches, config, workdir, profile)


class Programs:
    """`train.py` and the scripts as processes with their own environment variables."""

    def __init__(self, cache: Path) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(cache),
            "XDG_CACHE_HOME": str(cache),
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "COLUMNS": "200",
        }

    def command(self, workdir: Path, **overrides) -> list[str]:
        """Return the `train.py` command of a tiny GAN run."""
        flags = {"data__source": "fake", "data__image_size": 16, "log__samples": 4, **overrides}
        words = [f"--config.{key.replace('__', '.')}={value}" for key, value in flags.items()]
        config = "--config=configs/dcgan_mnist.py:smoke"
        return [sys.executable, "train.py", config, f"--workdir={workdir}", *words]

    def start(self, command: list[str]) -> subprocess.Popen:
        """Start a command with its output piped."""
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self, process: subprocess.Popen) -> tuple[int, str]:
        """Return exit status and standard error; a process that hangs fails the test."""
        try:
            _, errors = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return process.returncode, errors

    def train(self, workdir: Path, **overrides) -> tuple[int, str]:
        """Run `train.py` to its end."""
        return self.finish(self.start(self.command(workdir, **overrides)))

    def script(self, name: str, *words: str) -> subprocess.CompletedProcess:
        """Run `scripts/NAME.py`."""
        command = [sys.executable, f"scripts/{name}.py", *words]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def wait_for_step(self, process: subprocess.Popen, workdir: Path, step: int) -> None:
        """Wait until metrics.jsonl has the line of `step`, or the process has ended."""
        deadline = time.monotonic() + 120
        while process.poll() is None and last_step(workdir) < step:
            assert time.monotonic() < deadline, f"step {step} never came"
            time.sleep(0.005)


def last_step(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        return json.loads(lines[-1])["step"]
    except (IndexError, json.JSONDecodeError):
        return 0


def pytest_collection_modifyitems(items):
    quick = [item.nodeid for item in items if "programs" in item.fixturenames and not item.get_closest_marker("slow")]
    if quick:
        raise pytest.UsageError(f"real processes are slow: @pytest.mark.slow for {', '.join(quick)}")


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def programs(cache) -> Programs:
    return Programs(cache)


@pytest.fixture(scope="session")
def lab(cache):
    """In-process runs whose compiled programs are kept for the session: many tests run the same step."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", str(cache / "here"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    yield Lab(cache)
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def said():
    """The package's log lines, even if something stopped them from propagating."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger, level = logging.getLogger("gormley_vision"), logging.getLogger("gormley_vision").level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="session")
def end_of():
    """A function that returns everything of a finished run that must not depend on how often it was killed."""

    def end(workdir: Path) -> dict:
        folder = workdir / "checkpoints"
        step = ckpt.newest_complete(folder)
        metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        for line in metrics:
            assert line.pop("time")
        samples = {path.name: path.read_bytes() for path in (workdir / "samples").glob("*.png")}
        return {"digest": ckpt.digest(folder / str(step)), "metrics": metrics, "samples": samples}

    return end


@pytest.fixture(scope="session")
def after_steps(lab):
    """A function that runs steps without the loop: (metrics of each step, {name: array} of the state, the state).

    It may change the state before the first one.
    """

    def after(config: dict, workdir: Path, steps: int, change=lambda state: state) -> tuple:
        run, batches, compiled = lab.compile(config, workdir)
        state, logged = jax.device_put(change(run.state), run.state_shardings), []
        for step in range(steps):
            batch = jax.device_put(batches.read(step), run.shardings.batch)
            state, metrics, _ = compiled(state, run.resident, batch, run.key)
            logged.append({name: float(value) for name, value in metrics.items()})
        return logged, {name: np.array(x) for name, x in ckpt.flat(state).items()}, state

    return after


@pytest.fixture(scope="session", params=("gan", "classification"))
def finished(request, lab, tmp_path_factory):
    """(task, folder) of an uninterrupted smoke run; tests that use this must not depend on which task it is."""
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    assert lab.train(lab.config(request.param), workdir) == 0
    return request.param, workdir
