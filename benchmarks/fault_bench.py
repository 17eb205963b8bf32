"""Small runs for `inject_faults.py` to break: real `train.py` processes, compared with undisturbed runs."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gormley_vision.training import checkpoints as ckpt

ROOT = Path(__file__).parents[1]
STEPS = 60
# Together these use every random stream, and evaluation in the loop.
KINDS = {
    "gan": "--config=configs/dcgan_mnist.py:smoke --config.gan.discriminator_steps=2 --config.data.flip=true",
    "vit": "--config=configs/vit_mnist.py:smoke --config.vit.patch_size=4 --config.vit.dropout=0.1 "
    "--config.classification.shift=2 --config.eval.split=test",
}
SHARED = {"duration": f"{STEPS} steps", "checkpoint.every": "1 steps", "log.samples_every": "10 steps"}
SHARED |= {"data.image_size": "16", "data.source": "npz"}


class Running(NamedTuple):
    """A process, and the file with its output."""

    process: subprocess.Popen
    log: Path


class Finished(NamedTuple):
    """How a process ended."""

    status: int
    output: str
    seconds: float


@dataclasses.dataclass
class Outcome:
    """The results of all tries of one fault."""

    happened: str = ""
    tries: int = 0
    states_lost: int = 0  # complete checkpoints that disappeared, and runs whose end differs from the reference
    broken: list[str] = dataclasses.field(default_factory=list)
    not_tried: str = ""
    counts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Record a broken promise unless it holds."""
        if not holds:
            self.broken.append(f"try {self.tries}: {otherwise}")


@dataclasses.dataclass
class Bench:
    """A scratch folder with data, in which runs are started, and the results of undisturbed runs."""

    folder: Path
    kills: int
    draw: random.Random
    ends: dict[str, dict] = dataclasses.field(default_factory=dict)
    lives: dict[str, float] = dataclasses.field(default_factory=dict)  # duration of an undisturbed run, seconds

    def start(self, workdir: Path, kind: str = "gan", prefix: tuple[str, ...] = (), **settings: str) -> Running:
        """Start `train.py`; settings are config keys with '__' for '.', and environment variables in capitals."""
        keys = SHARED | {"data.path": str(self.folder / "npz")} | ({"eval.every": "10 steps"} if kind == "vit" else {})
        keys |= {key.replace("__", "."): value for key, value in settings.items() if not key.isupper()}
        variables = {"JAX_PLATFORMS": "cpu", **os.environ, "COLUMNS": "200"}
        variables |= {
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "xla"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }
        variables |= {key: value for key, value in settings.items() if key.isupper()}
        words = [*prefix, sys.executable, "train.py", f"--workdir={workdir}", *KINDS[kind].split()]
        words += [f"--config.{key}={value}" for key, value in keys.items()]
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        with log.open("wb") as file:
            return Running(subprocess.Popen(words, cwd=ROOT, env=variables, stdout=file, stderr=file), log)

    def train(self, workdir: Path, kind: str = "gan", **settings: Any) -> Finished:
        """Run `train.py` to its end; settings as in `start`."""
        return finish(self.start(workdir, kind, **settings))

    def undisturbed(self, workdir: Path, kind: str = "gan", **settings: Any) -> Path:
        """Run `train.py` to its end; it must succeed."""
        done = self.train(workdir, kind, **settings)
        if done.status:
            raise RuntimeError(f"an undisturbed run failed:\n{done.output}")
        return workdir

    def reference(self, kind: str = "gan") -> dict:
        """Return the end of an undisturbed run; two of them must agree."""
        if kind not in self.ends:
            first, second = (self.folder / f"{kind} {number}" for number in (1, 2))
            for name, workdir in (("first", first), ("second", second)):  # the first compiles
                began = time.monotonic()
                self.undisturbed(workdir, kind)
                self.lives[f"{kind} {name}"] = time.monotonic() - began
            self.ends[kind] = end_of(first)
            if end_of(second) != self.ends[kind]:
                raise RuntimeError("two undisturbed runs differ: results on this machine are not reproducible")
        return self.ends[kind]

    def half(self, name: str, **settings: str) -> Path:
        """Return the folder of a run that stopped half way."""
        return self.undisturbed(self.folder / name, stop_after=f"{STEPS // 2} steps", **settings)

    def expect_end(self, outcome: Outcome, workdir: Path, kind: str = "gan", **settings: Any) -> str:
        """Continue to the end, compare with the reference, remove the folder. Returns the output."""
        reference = self.reference(kind)
        done = self.train(workdir, kind, **settings)
        outcome.expect(done.status == 0, f"the same command failed: {done.output[-300:]}")
        end = end_of(workdir) if done.status == 0 else {}
        differing = [name for name in reference if end.get(name) != reference[name]]
        outcome.expect(not differing, f"differs from an undisturbed run: {', '.join(differing)}")
        outcome.states_lost += "digest" in differing
        shutil.rmtree(workdir)
        return done.output


def make_data(folder: Path) -> None:
    """Write 64 labelled images of noise, as npz files and as a folder, with the same pixels in the same order."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16), np.uint8)
    (folder / "npz").mkdir()
    for split in ("train", "test"):
        np.savez(folder / "npz" / f"{split}.npz", images=pixels, labels=np.repeat(np.arange(4), 16))
    for i, image in enumerate(pixels):
        path = folder / "images" / f"class{i // 16}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def finish(running: Running) -> Finished:
    """Wait for the end of a process."""
    began = time.monotonic()
    try:
        status = running.process.wait(300)
    finally:
        running.process.kill()
    return Finished(status, running.log.read_text(errors="replace"), time.monotonic() - began)


def hold_at(running: Running, step: int) -> None:
    """Pause the process once it has printed the line of `step`; else it might end before the fault."""
    while running.process.poll() is None and f"step {step}/" not in running.log.read_text(errors="replace"):
        time.sleep(0.005)
    running.process.send_signal(signal.SIGSTOP)


def resume(running: Running) -> None:
    """Continue a paused process."""
    running.process.send_signal(signal.SIGCONT)


def end_of(workdir: Path) -> dict:
    """Return everything of a finished run that must not depend on what happened to it."""
    step = ckpt.newest_complete(workdir / "checkpoints")
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    starts = [int(path.name.rpartition(".")[2]) for path in sorted((workdir / "tensorboard").iterdir())]
    return {
        "digest": ckpt.digest(workdir / "checkpoints" / str(step)),
        "metrics": [{key: value for key, value in line.items() if key != "time"} for line in metrics],
        "samples": {path.name: path.read_bytes() for path in (workdir / "samples").glob("*.png")},
        "order of TensorBoard's files": starts == sorted(starts),  # read by name; each drops the steps it repeats
        "unfinished checkpoints": sorted(path.name for path in (workdir / "checkpoints").glob("*.partial")),
    }


def expect_refusal(outcome: Outcome, done: Finished, *names: str) -> None:
    """Expect one message that names what is wrong, exit status 2, and no stack trace."""
    message = done.output.partition("error: ")[2]
    outcome.expect(done.status == 2, f"exit status {done.status}: {done.output[-300:]}")
    trace = max(done.output.find("Traceback"), 0)
    outcome.expect(trace == 0, f"a stack trace: {done.output[trace : trace + 600]}")
    for name in names:
        outcome.expect(name in message, f"the message does not name {name!r}: {message[:300]}")


def expect_complete(outcome: Outcome, workdir: Path, at_least: int) -> int:
    """Return the newest checkpoint. Every one with a bare number must be complete, and step `at_least` not be lost."""
    steps = ckpt.steps_of(workdir / "checkpoints")
    damaged = [step for step in steps if ckpt.find_damage(workdir / "checkpoints" / str(step))]
    newest = max(set(steps) - set(damaged), default=0)
    outcome.expect(not damaged, f"checkpoints {damaged} are damaged")
    outcome.expect(
        newest >= at_least, f"the checkpoint of step {at_least} was complete, but now {newest} is the newest"
    )
    outcome.states_lost += newest < at_least
    return newest


@contextlib.contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    """Run `mount WORDS folder`, and unmount at the end of the block."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *words, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
