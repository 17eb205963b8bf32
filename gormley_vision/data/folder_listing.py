"""What lies in a folder: of images, the image files at any depth, and how many of what else."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageFile

from gormley_vision.errors import UserError

# Pillow opens these, but does not decode them by itself: Ghostscript does for EPS, nothing does for MPEG. The
# formats of its StubImageFile (BUFR, GRIB, HDF5, WMF) need a handler that somebody registers.
NOT_DECODED = ("EPS", "MPEG")
# Files and folders that systems put beside pictures, thumbnails among them; as hidden files, nobody misses them.
SYSTEM_NAMES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir")


@lru_cache(maxsize=1)
def image_suffixes() -> frozenset[str]:
    """Suffixes (lower case, with their dot) of the formats that this Pillow can decode, by its own registry."""
    suffixes = Image.registered_extensions()  # loads all plugins, which fill OPEN
    # MPO, what a phone calls .jpg and a 3-D camera .mpo, is opened as JPEG.
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
      left_out: how many visible files of which suffix (lower case; "" for none) are no images.
    """

    images: list[str] = field(default_factory=list)
    by_class: dict[str, list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe_left_out(self) -> str:
        """As in "left out 12 files that are no images: 10 .txt, 2 .mov"; "" where nothing was."""
        if not self.left_out:
            return ""
        count = sum(self.left_out.values())
        kinds = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        what = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in kinds)
        return f"left out {count} {'file that is no image' if count == 1 else 'files that are no images'}: {what}"


def list_folder(root: Path) -> Listing:
    """List a folder and all below it. Links to folders are followed, unless they lead back to a folder around them.

    Raises:
      UserError: a folder that cannot be read; names it.
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
    """Paths of all visible files of a folder at any depth, relative to it, sorted part by part.

    Raises:
      UserError: a folder that cannot be read; names it.
    """
    return sorted(_below(root, (_real(root),)), key=lambda path: path.split("/"))


def size_and_time(file: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change: by these an identity knows a file.

    Raises:
      UserError: it cannot be read; names it.
    """
    try:
        stat = file.stat()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    return stat.st_size, stat.st_mtime_ns


def _below(folder: Path, around: tuple[Path, ...]) -> Iterator[str]:
    """Paths of all visible files below `folder`, relative to it; `around` are the real folders on the way to it."""
    files, folders = _scan(folder)
    yield from files
    for name in folders:
        real = _real(folder / name)
        if not _leads_back(real, around):
            for path in _below(folder / name, (*around, real)):
                yield f"{name}/{path}"


def _leads_back(real: Path, around: tuple[Path, ...]) -> bool:
    """Whether a folder contains one of those on the way to it: only a link can, and following it would not end."""
    return any(outer.is_relative_to(real) for outer in around)


def _images(paths: Iterator[str] | list[str], left_out: Counter[str]) -> list[str]:
    """Those paths that end as an image does; counts the others."""
    known, images = image_suffixes(), []
    for path in paths:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path for each of a million files is slow
        if suffix in known:
            images.append(path)
        else:
            left_out[suffix] += 1
    return images


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the visible files and of the visible folders directly inside."""
    try:
        with os.scandir(folder) as entries:
            visible = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in SYSTEM_NAMES]
            folders = sorted(entry.name for entry in visible if entry.is_dir())
            # To read a pipe waits for a writer. A link that leads nowhere is read, and refused by its name.
            odd = [e.path for e in visible if not (e.is_dir() or e.is_file()) and os.path.exists(e)]  # noqa: PTH110
            if odd:
                raise UserError(f"{min(odd)} is a pipe, a socket or a device, and no file: move it away")
            return sorted(entry.name for entry in visible if not entry.is_dir()), folders
    except OSError as error:
        raise UserError(
            f"cannot read the folder {folder}: {error.strerror or error}. Fix that or move it away"
        ) from error


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))
