"""Files that are complete or absent, whenever the process is killed; and paths as users type them."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError, naming

STORES = ("gs:", "s3:", "az:", "hf:")


def user_path(text: str | os.PathLike) -> Path:
    """Return a path typed by the user in a flag or a config, with `~` and `~name` expanded.

    Raises:
        UserError: an object store's address, or an unknown home.
    """
    text = os.fspath(text)
    if "://" in text or text.startswith(STORES):
        raise UserError(
            f"{text} is an object store's address, and only paths of a file system can be read and written here: mount "
            "the bucket (gcsfuse, mountpoint-s3, SkyPilot's file_mounts) and pass the path where it is mounted"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: {error}; write the folder out, or set HOME") from error


def path_flag(text: str) -> Path:
    """Return the path that a flag gives: `user_path`, but an empty one, which is the current folder, is refused.

    Raises:
        argparse.ArgumentTypeError: it is empty.
        UserError: as `user_path`.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a file or a folder (is a shell variable unset?)")
    return user_path(text)


def home_cache() -> Path:
    """Return `$XDG_CACHE_HOME/gormley_vision`, by default `~/.cache/gormley_vision`.

    Raises:
        UserError: neither XDG_CACHE_HOME nor a home directory is known.
    """
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "gormley_vision"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file, flush it to disk, then rename it to `path`: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without their ends and a byte-order mark; only a line feed ends a line.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte {error.start} ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; pass a text file") from None
    if lines[-1] == "":  # after the last line's end
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def typed_text(text: str, flag: str) -> str:
    """Return a text typed by the user.

    Raises:
        UserError: its bytes were not UTF-8, which Python turns into what no tokenizer reads.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{flag} is not UTF-8 at character {error.start}: type it in a UTF-8 terminal") from None
    return text


def refuse_unwritable(path: Path) -> None:
    """Raise the error that writing `path` would: before the work, rather than after it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file, as in {path / 'result.json'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _beside(path).touch()
    _beside(path).unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Refuses NaN and infinities."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # in the text, or in its encoding
        raise UserError(f"{path} is damaged: not JSON ({error}); restore it, or move its folder away") from None
