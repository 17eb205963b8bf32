"""What a run leaves for people: metrics.jsonl, TensorBoard, sample grids, run.log. All cut back on resume."""

import contextlib
import datetime
import fcntl
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np
from PIL import Image

from gormley_vision.errors import UserError
from gormley_vision.files import write_atomically


class Records:
    """The writers of one run, which continues after `step` (0: from the start)."""

    def __init__(self, workdir: Path, step: int) -> None:
        from tensorboardX import SummaryWriter  # 1 s to import: after the first words to the user

        self.workdir = workdir
        cut_back(workdir, step)
        self._metrics = (workdir / "metrics.jsonl").open("a", buffering=1)
        self._board = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1, flush_secs=10, filename_suffix=f".{step}"
        )

    def scalars(self, step: int, values: Mapping[str, float], time: Mapping[str, float | str]) -> None:
        """One line of metrics.jsonl. All but `time` is the same however often the run was killed."""
        self._metrics.write(json.dumps({"step": step, **values, "time": dict(time)}, allow_nan=False) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def pictures(self, step: int, images: np.ndarray, columns: int) -> None:
        """`samples/<step>.png` from images [n, H, W, C] in [-1, 1], and the same in TensorBoard."""
        grid = tile(to_uint8(images), columns)
        write_png(self.workdir / "samples" / f"{step:08d}.png", grid)
        self._board.add_image("samples", grid, step, dataformats="HWC")

    def close(self) -> None:
        """Flush everything."""
        self._metrics.close()
        self._board.close()


def cut_back(workdir: Path, step: int) -> None:
    """Drop what an earlier process recorded after `step`: lines of metrics.jsonl, and sample grids."""
    path = workdir / "metrics.jsonl"
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
    for picture in (workdir / "samples").glob("*.png"):
        if picture.stem.isdigit() and int(picture.stem) > step:
            picture.unlink()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:  # the line that the kill cut short
        return float("inf")


def log_to(path: Path, extra: logging.Handler) -> None:
    """Send the package's log to a file with times, and to `extra` (the console) as it is."""
    # Orbax tells a dozen lines a checkpoint, and raises its errors to us besides logging them with traces.
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    logger = logging.getLogger("gormley_vision")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(file)
    logger.addHandler(extra)


def _unraisable(fault: Any) -> None:
    """Python's hook, but for tensorstore's callbacks, which outlive orbax's event loop when a write failed."""
    if str(fault.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(fault)


def now() -> str:
    """The time, for people."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def to_uint8(images: Any) -> np.ndarray:
    """[-1, 1] to uint8 [0, 255], rounded."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 [n, H, W, C] to one picture [rows*(H+2)-2, columns*(W+2)-2, C], row by row, white where empty."""
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, channels), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        grid[top : top + height, left : left + width] = image
    return grid


def write_png(path: Path, image: np.ndarray) -> None:
    """uint8 [H, W, C], C 1 or 3, as PNG, atomically."""
    buffer = BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Own the run's folder while the block runs; the system gives it up however the process ends.

    Raises:
        UserError: another process owns it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process trains in {workdir}: wait for it, or pass another --workdir") from None
        yield
