"""The ways in which `inject_faults.py` breaks runs: one function per fault, which returns what happened."""

import collections
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fault_bench import (
    STEPS,
    Bench,
    Outcome,
    expect_complete,
    expect_refusal,
    finish,
    hold_at,
    mounted,
    resume,
)
from PIL import Image

from gormley_vision.training import checkpoints as ckpt

HALF = STEPS // 2


def kill(bench: Bench) -> Outcome:
    """Start processes on one folder and kill each at a random time, until one reaches the end; repeat."""
    outcome, moments, chains, began = Outcome(), collections.Counter[str](), 0, time.monotonic()
    while outcome.tries < bench.kills:
        kind, cold = (
            ("gan", "vit")[chains % 2],
            chains % 8 < 2,
        )  # a quarter of the chains starts with an empty compilation cache
        bench.reference(kind)
        workdir, newest = bench.folder / "killed", 0
        cache: dict[str, Any] = {"JAX_COMPILATION_CACHE_DIR": str(bench.folder / f"xla {chains}")} if cold else {}
        while outcome.tries < bench.kills:
            before = unfinished(workdir)
            running = bench.start(workdir, kind, **cache)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(bench.draw.uniform(0, bench.lives[f"{kind} {'first' if cold else 'second'}"]))
            newest = max([newest, *ckpt.steps_of(workdir / "checkpoints")])
            running.process.kill()
            if (done := finish(running)).status != -signal.SIGKILL:
                outcome.expect(done.status == 0, f"status {done.status} after the last kill: {done.output[-600:]}")
                break
            outcome.tries += 1
            newest = expect_complete(outcome, workdir, at_least=newest)
            moments[moment_of(running.log.read_text(), writing=unfinished(workdir) - before)] += 1
        workdir.mkdir(exist_ok=True)
        bench.expect_end(outcome, workdir, kind, **cache)
        chains += 1
        left = (time.monotonic() - began) / outcome.tries * (bench.kills - outcome.tries) if outcome.tries else 0
        print(f"  {outcome.tries} of {bench.kills} kills, {left:.0f} s left", flush=True)
    outcome.counts = {"runs": chains, **dict(sorted(moments.items()))}
    words = ", ".join(f"{count} {moment}" for moment, count in sorted(moments.items()))
    outcome.happened = f"{chains} runs, each to the same end; kills: {words}"
    return outcome


def unfinished(workdir: Path) -> set[tuple[str, int]]:
    """Return checkpoints being written or deleted: name and inode, to distinguish those of an earlier kill."""
    return {(path.name, path.stat().st_ino) for path in (workdir / "checkpoints").glob("*.partial")}


def moment_of(printed: str, writing: object) -> str:
    """Describe when a process was killed."""
    if writing:
        return "while a checkpoint was written"
    if f"step {STEPS}/" in printed:
        return "after the last step"
    return "between checkpoints" if re.search(r"step \d+/", printed) else "before the first step"


def full_disk(bench: Bench) -> Outcome:
    """Fill the disk by the run's own checkpoints, and by another program at a random step."""
    outcome = Outcome()
    for size, keep, every in 2 * [("4M", "99", "1 steps")] + 4 * [("32M", "2", "1 steps"), ("32M", "2", "25 steps")]:
        outcome.tries += 1
        with mounted(bench.folder / "disk", "-t", "tmpfs", "-o", f"size={size}", "x") as disk:
            running = bench.start(disk / "run", checkpoint__keep_last=keep, checkpoint__every=every)
            if keep == "2":
                hold_at(running, bench.draw.randrange(1, STEPS - 20))
                fill(disk / "other", spare=bench.draw.choice([0, 4096, 100_000]))
                resume(running)
            seen = max(ckpt.steps_of(disk / "run" / "checkpoints"), default=0)
            done = finish(running)
            expect_refusal(outcome, done, str(disk))
            outcome.expect(
                bool(re.search(r"disk is full|No space left", done.output)), "the message does not say 'full'"
            )
            expect_complete(outcome, disk / "run", at_least=seen)
            subprocess.run(["mount", "-o", "remount,size=64M", disk], check=True)
            (disk / "other").unlink(missing_ok=True)
            bench.expect_end(outcome, disk / "run")
    outcome.happened = "one line, status 2; every checkpoint stayed complete; with space again, the same end"
    return outcome


def fill(path: Path, spare: int) -> None:
    """Write until the disk is full, then give back `spare` bytes."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, path.stat().st_size - spare)


def read_only(bench: Bench) -> Outcome:
    """Make the folder read-only at the first start, at a resume, and from a random step on."""
    outcome, slowest = Outcome(), 0.0
    for when in ("start", "resume", "training", "training"):
        outcome.tries += 1
        with mounted(bench.folder / "disk", "-t", "tmpfs", "x") as disk:
            if when == "resume":
                bench.half("disk/run")
            if when == "training":
                running = bench.start(disk / "run")
                hold_at(running, bench.draw.randrange(1, STEPS - 20))
            with mounted(disk, "--bind", str(disk)):
                subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
                began = time.monotonic()
                if when == "training":
                    resume(running)
                else:
                    running = bench.start(disk / "run")
                done = finish(running)
                slowest = max(slowest, time.monotonic() - began)
                expect_refusal(outcome, done, str(disk))
                outcome.expect(bool(re.search("Read-only|cannot be written", done.output)), "it does not say read-only")
            outcome.expect(time.monotonic() - began < 30, "it took more than 30 s")
            expect_complete(outcome, disk / "run", at_least={"start": 0, "resume": HALF, "training": 1}[when])
            bench.expect_end(outcome, disk / "run")
    outcome.happened = f"one line that names it, status 2, after at most {slowest:.0f} s; writable again, the same end"
    return outcome


def damaged(bench: Bench, tries: int, damage: Callable[[Path, random.Random], None]) -> Outcome:
    """Damage a random file of the newest checkpoint, `tries` times."""
    outcome, base = Outcome(), bench.half("half")
    for _ in range(tries):
        outcome.tries += 1
        workdir = Path(shutil.copytree(base, bench.folder / "damaged"))
        newest = workdir / "checkpoints" / str(HALF)
        path = any_file(newest, bench.draw)
        damage(path, bench.draw)
        output = bench.expect_end(outcome, workdir)
        name = (
            "" if path.name == "SHA256SUMS" else path.relative_to(newest)
        )  # wrong sums name the file that they belong to
        outcome.expect(f"checkpoint {HALF} is damaged ({name}" in output, f"{path.name} was not named")
        outcome.expect(f"continuing after step {HALF - 1}" in output, "it did not continue from the checkpoint before")
    shutil.rmtree(base)
    outcome.happened = "named; continued from the checkpoint before, to the same end"
    return outcome


def any_file(checkpoint: Path, draw: random.Random) -> Path:
    """Return a random file that is not empty."""
    return draw.choice(sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size))


def flip_bit(path: Path, draw: random.Random) -> None:
    """Flip one random bit of the file."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, draw: random.Random) -> None:
    """Cut the file short at a random byte."""
    os.truncate(path, draw.randrange(path.stat().st_size))


def all_damaged(bench: Bench) -> Outcome:
    """Flip one bit in each checkpoint of a run."""
    outcome, base = Outcome(), bench.half("half")
    for _ in range(2):
        outcome.tries += 1
        for checkpoint in sorted((base / "checkpoints").iterdir()):
            flip_bit(any_file(checkpoint, bench.draw), bench.draw)
        before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file() and path.name != "run.log"}
        expect_refusal(outcome, bench.train(base), "every checkpoint in", str(base))
        now = {path: path.read_bytes() for path in base.rglob("*") if path.is_file() and path.name != "run.log"}
        outcome.expect(now == before, "files have changed")
    shutil.rmtree(base)
    outcome.happened = "refused; not a byte of the folder changed but run.log"
    return outcome


def clock(bench: Bench) -> Outcome:
    """Start a run, and continue it with the clock set back by an hour and by ten years; file times stay real."""
    if not shutil.which("faketime"):
        return Outcome(not_tried="needs Debian's package faketime")
    outcome = Outcome()
    for back in ("-1h", "-3650d"):
        outcome.tries += 1
        workdir = bench.half("clock")
        earlier = ("faketime", "-m", "--exclude-monotonic", "-f", back)
        bench.expect_end(outcome, workdir, prefix=earlier, NO_FAKE_STAT="1")
    outcome.happened = "the same end; TensorBoard's files still in order"
    return outcome


def two_runs(bench: Bench) -> Outcome:
    """Start two runs at once, and a second one while the first is paused (SIGSTOP) at a random step."""
    outcome, slowest = Outcome(), 0.0
    for at_once in (True, True, True, False, False, False):
        outcome.tries += 1
        workdir = bench.folder / "shared"
        first = bench.start(workdir)
        if not at_once:
            hold_at(first, bench.draw.randrange(1, STEPS - 10))
        second = finish(bench.start(workdir))
        resume(first)
        one, other = sorted([finish(first), second])  # by exit status
        outcome.expect(one.status == 0 and (at_once or second is other), "the first was disturbed")
        expect_refusal(outcome, other, "another process trains in", str(workdir))
        slowest = max(slowest, other.seconds)
        bench.expect_end(outcome, workdir)
    outcome.happened = (
        f"one of the two was refused, {slowest:.0f} s after its start at most; the other came to the same end"
    )
    return outcome


def change_pixel(path: Path) -> None:
    """Invert one pixel."""
    if path.suffix == ".npz":
        with np.load(path) as content:
            images, labels = content["images"], content["labels"]
        images[7, 3, 3] ^= 255
        np.savez(path, images=images, labels=labels)
    else:
        image = np.array(Image.open(path))
        image[3, 3] ^= 255
        Image.fromarray(image).save(path)


def copy_beside(path: Path) -> None:
    """Add one example."""
    shutil.copy(path, path.with_name(f"{path.stem}-2.png"))


def changed_data(bench: Bench) -> Outcome:
    """Change data in each way between stopping and resuming, then restore them."""
    outcome = Outcome()
    ways: list[tuple[str, str, Callable[[Path], None], str]]
    ways = [("npz", "train.npz", change_pixel, "device"), ("npz", "train.npz", change_pixel, "stream")]
    for placement in ("device", "stream"):
        ways += [("images", "class2/40.png", change, placement) for change in (change_pixel, os.unlink, copy_beside)]
    for source, name, change, placement in ways:
        outcome.tries += 1
        data = Path(shutil.copytree(bench.folder / source, bench.folder / "data"))
        settings: dict[str, Any] = {"data__source": source.replace("images", "folder"), "data__path": str(data)}
        settings["data__placement"] = placement
        workdir = bench.half("changed", **settings)
        change(data / name)
        named = name.replace(".png", "-2.png") if change is copy_beside else name
        expect_refusal(outcome, bench.train(workdir, **settings), "the data set has changed", named)
        shutil.rmtree(data)
        shutil.copytree(bench.folder / source, data)  # with the times of its files
        bench.expect_end(outcome, workdir, **settings)
        shutil.rmtree(data)
    outcome.happened = "refused, the file named; put back, the same end"
    return outcome


def halve(path: Path) -> None:
    """Cut off the second half."""
    os.truncate(path, path.stat().st_size // 2)


def become_folder(path: Path) -> None:
    """Replace the file by a folder of the same name."""
    path.unlink()
    path.mkdir()


def failing_source(bench: Bench) -> Outcome:
    """Break one image: before the folder is decoded, or, streamed, at a random step; then restore it."""
    outcome = Outcome()
    ways: dict[str, Callable[[Path], object]] = {
        "truncated": halve,
        "deleted": os.unlink,
        "overwritten": lambda path: path.write_bytes(b"no image"),
        "a folder": become_folder,
        "gone with its folder": lambda path: shutil.rmtree(path.parents[1]),
    }
    for way, when in [("truncated", "before"), ("overwritten", "before"), *((way, "while") for way in ways)]:
        outcome.tries += 1
        data = Path(shutil.copytree(bench.folder / "images", bench.folder / "data"))
        path, workdir = data / f"class2/{bench.draw.randrange(32, 48)}.png", bench.folder / "failing"
        settings: dict[str, Any] = {"data__source": "folder", "data__path": str(data)}
        settings["data__placement"] = {"before": "device", "while": "stream"}[when]
        if when == "before":
            ways[way](path)
        running = bench.start(workdir, **settings)
        if when == "while":
            hold_at(running, bench.draw.randrange(1, STEPS - 20))
            ways[way](path)
            resume(running)
        name = str(data) if way.startswith("gone") else str(path)
        expect_refusal(outcome, finish(running), name)
        expect_complete(outcome, workdir, at_least=int(when == "while"))
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(bench.folder / "images", data)
        bench.expect_end(outcome, workdir, **settings)
        shutil.rmtree(data)
    outcome.happened = "one line that names the image, status 2; earlier checkpoints complete; repaired, the same end"
    return outcome
