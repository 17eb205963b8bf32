"""Lists a folder: its image files at any depth, and how many other files there are of each kind."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageFile

from gormley_vision.errors import UserError

# Pillow opens these, but does not decode them itself: EPS needs Ghostscript, MPEG has no decoder. The formats of
# its StubImageFile (BUFR, GRIB, HDF5, WMF) need a registered handler.
NOT_DECODED = ("EPS", "MPEG")
# Files and folders that operating systems add to pictures, such as thumbnails; ignored like hidden files.
SYSTEM_NAMES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir")


@lru_cache(maxsize=1)
def image_suffixes() -> frozenset[str]:
    """Return the suffixes (lower case, with a dot) of the formats that this Pillow can decode, from its registry."""
    suffixes = Image.registered_extensions()  # loads all plugins, so OPEN is complete
    # MPO (.jpg from some phones, .mpo from 3-D cameras) is opened as JPEG.
    formats = {name for name in Image.OPEN if name not in NOT_DECODED and not _is_stub(name)} | {"MPO"}
    return frozenset(suffix for suffix, name in suffixes.items() if name in formats)


def _is_stub(name: str) -> bool:
    factory = Image.OPEN[name][0]
    return isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)


@dataclass(frozen=True)
class Listing:
    """The contents of a folder.

    Attributes:
        images: names of the image files directly inside, sorted.
        by_class: for each visible subfolder directly inside, sorted by name, the paths (relative to that subfolder,
          with "/") of the image files in it at any depth, sorted part by part.
        left_out: {suffix (lower case; "" for none): number of visible files that are not images}.
    """

    images: list[str] = field(default_factory=list)
    by_class: dict[str, list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe_left_out(self) -> str:
        """Return text such as "left out 12 files that are not images: 10 .txt, 2 .mov"; "" if there are none."""
        if not self.left_out:
            return ""
        count = sum(self.left_out.values())
        kinds = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        what = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in kinds)
        return f"left out {count} {'file that is not an image' if count == 1 else 'files that are not images'}: {what}"


def list_folder(root: Path) -> Listing:
    """List a folder and everything below it. Follows links to folders, unless they lead to a folder above them.

    Raises:
        UserError: a folder cannot be read. Names it.
    """
    listing = Listing()
    real_root = _real(root)
    files, folders = _scan(root)
    listing.images.extend(_images(files, listing.left_out))
    for folder in folders:
        real = _real(root / folder)
        if _leads_back(real, (real_root,)):
            continue
        below = _below(root / folder, (real_root, real))
        images = sorted(_images(below, listing.left_out), key=lambda path: path.split("/"))
        listing.by_class[folder] = images
    return listing


def list_files(root: Path) -> list[str]:
    """Return the paths of all visible files in a folder at any depth, relative to it, sorted part by part.

    Raises:
        UserError: a folder cannot be read. Names it.
    """
    return sorted(_below(root, (_real(root),)), key=lambda path: path.split("/"))


def size_and_time(file: Path) -> tuple[int, int]:
    """Return a file's size in bytes and time of last change, for an identity.

    Raises:
        UserError: the file cannot be read. Names it.
    """
    try:
        stat = file.stat()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    return stat.st_size, stat.st_mtime_ns


def _below(folder: Path, around: tuple[Path, ...]) -> Iterator[str]:
    """Yield the paths of all visible files below `folder`, relative to it; `around` are the real folders above it."""
    files, folders = _scan(folder)
    yield from files
    for name in folders:
        real = _real(folder / name)
        if not _leads_back(real, around):
            for path in _below(folder / name, (*around, real)):
                yield f"{name}/{path}"


def _leads_back(real: Path, around: tuple[Path, ...]) -> bool:
    """Return whether a folder contains one of those above it: a link may, and following it would not end."""
    return any(outer.is_relative_to(real) for outer in around)


def _images(paths: Iterator[str] | list[str], left_out: Counter[str]) -> list[str]:
    """Return the paths with an image's suffix, and count the others in `left_out`."""
    known, images = image_suffixes(), []
    for path in paths:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path for each of a million files is slow
        if suffix in known:
            images.append(path)
        else:
            left_out[suffix] += 1
    return images


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return sorted names of the visible files and of the visible folders directly inside."""
    try:
        with os.scandir(folder) as entries:
            visible = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in SYSTEM_NAMES]
            folders = sorted(entry.name for entry in visible if entry.is_dir())
            # Reading a pipe would wait for a writer. A broken link is not odd: reading it fails with its name.
            odd = [e.path for e in visible if not (e.is_dir() or e.is_file()) and os.path.exists(e)]  # noqa: PTH110
            if odd:
                raise UserError(f"{min(odd)} is a pipe, a socket or a device, not a file: move it away")
            return sorted(entry.name for entry in visible if not entry.is_dir()), folders
    except OSError as error:
        raise UserError(
            f"cannot read the folder {folder}: {error.strerror or error}. Fix it or move it away"
        ) from error


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))
