"""Translate pictures by a trained image-to-image run: enlarge, colour, fill, extend, or turn one kind into another.

    python scripts/translate.py --workdir=runs/sr --in=photo.jpg --out=large.png
    python scripts/translate.py --workdir=runs/sr --in=Set5 --degrade --out=enlarged
    python scripts/translate.py --workdir=runs/inpaint --in=photo.jpg --mask=hole.png --out=filled.png
    python scripts/translate.py --workdir=runs/uncrop --in=photo.jpg --extend=0,64,0,64 --out=wide.png
    python scripts/translate.py --workdir=runs/pix2pix --in=labels --targets=photos --out=scenes

`--in` is a picture or a folder of pictures, `--out` FILE.png or a folder. What is to be filled is white in `--mask` (a
file, or a folder with a mask of each picture's name; a mask's own transparent parts are not white), or what `--extend`
adds (pixels at the top, right, bottom and left), and always what is transparent in the picture itself. With `--degrade`
the pictures are targets: an input is made of each as in training. These, and pairs with `--targets`, are scored: PSNR
and SSIM of the outputs, of the inputs as they are (`given_`) and of holes filled with the nearest known pixel
(`nearest_`); after super-resolution of luma, without a border of `scale` pixels, as the field does.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gormley_vision.errors import UserError, listed, reported

with reported():  # what loads now takes a moment
    import numpy as np
    from PIL import Image

    from gormley_vision.data.decoding import decode_file
    from gormley_vision.data.folder_listing import image_suffixes, list_folder
    from gormley_vision.data.images import to_mode
    from gormley_vision.data.targets import classes_of
    from gormley_vision.files import path_flag, refuse_unwritable, write_json
    from gormley_vision.metrics.image_quality import luma, psnr, ssim, without_border
    from gormley_vision.samples import write_png


MOST = 8192  # pixels that a picture can be extended by, at a side
SMALLEST = 12  # pixels along a side that can be compared, besides the border
EQUAL = 100.0  # decibels of pictures that do not differ


class Job(NamedTuple):
    """A picture, what it becomes, and the files that belong to it."""

    name: str  # as it is told apart from others of its folder
    file: Path
    out: Path
    mask: Path | None
    target: Path | None


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", required=True, type=path_flag, help="the run's folder")
    parser.add_argument("--in", dest="source", required=True, type=path_flag, help="a picture, or a folder of them")
    parser.add_argument("--out", required=True, type=path_flag, help="FILE.png, or a folder")
    parser.add_argument("--mask", type=path_flag, help="white where a picture is to be filled")
    parser.add_argument("--extend", default="", help="TOP,RIGHT,BOTTOM,LEFT: pixels to add, which are filled")
    parser.add_argument("--degrade", action="store_true", help="the pictures are targets: make the inputs of them")
    parser.add_argument("--targets", type=path_flag, help="folder with each picture's target, by name")
    parser.add_argument("--own_size", action="store_true", help="do not squeeze pictures to the size of training")
    parser.add_argument(
        "--tile", type=int, default=0, help="compute parts of so many pixels, at the picture's own size"
    )
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest one)")
    parser.add_argument("--json", type=path_flag, help="also write the scores to this file")
    options = parser.parse_args()
    if sum(map(bool, (options.mask, options.extend, options.degrade))) > 1:
        raise UserError("--mask, --extend and --degrade each say what is to be filled: pass one of them")
    if options.degrade and options.targets:
        raise UserError("--degrade takes the pictures themselves as targets: leave out --targets")
    if options.tile < 0:
        raise UserError(f"--tile={options.tile}: a number of pixels, or 0 for the default")
    if options.json and not (options.degrade or options.targets):
        raise UserError("--json has nothing to say without targets: pass --degrade, or --targets=FOLDER")
    if options.json:
        refuse_unwritable(options.json)
    return options


def files_of(options: argparse.Namespace) -> Iterator[tuple[str, Path, Path]]:
    """Yield each picture's name, its file, and the file that it becomes."""
    if options.out.suffix.lower() in image_suffixes() - {".png"}:
        raise UserError(f"--out={options.out}: pictures are written as PNG: --out={options.out.with_suffix('.png')}")
    if options.source.is_file():
        if options.out.suffix and options.out.suffix.lower() != ".png" and not options.out.is_dir():
            raise UserError(f"--out={options.out}: write FILE.png, or a folder's name without a suffix")
        single = options.out.suffix.lower() == ".png"
        if single and options.out.is_dir():
            raise UserError(f"--out={options.out} is a folder: write --out={options.out / options.source.stem}.png")
        yield options.source.name, options.source, options.out if single else options.out / f"{options.source.stem}.png"
        return
    if not options.source.is_dir():
        raise UserError(f"no picture or folder {options.source}: pass --in=FILE or --in=FOLDER")
    if options.out.suffix.lower() == ".png":
        raise UserError(f"--in is a folder, so its pictures go to one: --out={options.out.with_suffix('')}")
    listing = list_folder(options.source)
    names = [*listing.images, *(f"{name}/{image}" for name, images in listing.by_class.items() for image in images)]
    if left_out := listing.describe_left_out():
        print(f"{options.source}: {left_out}", file=sys.stderr)
    if not names:
        raise UserError(f"no pictures in {options.source}: pass --in=FILE or --in=FOLDER")
    taken: set[str] = set()
    for name in names:
        out = str(Path(name).with_suffix(""))
        out = out if out not in taken else name  # a.jpg and a.png
        taken.add(out)
        yield name, options.source / name, options.out / f"{out}.png"


def partner(folder: Path, file: Path, source: Path, what: str) -> Path:
    """Return the file of the same name, whatever its suffix, in a folder; a single file is its own.

    One mask may be that of all pictures, one target may not.
    """
    if folder.is_file():
        if what == "targets" and source.is_dir():
            raise UserError(f"--targets={folder} is one picture, and --in a folder: pass the folder of their targets")
        return folder
    stem = file.relative_to(source).with_suffix("") if source.is_dir() else Path(file.stem)
    beside = (folder / stem.parent).iterdir() if (folder / stem.parent).is_dir() else ()
    found = sorted(path for path in beside if path.stem == stem.name and path.suffix.lower() in image_suffixes())
    if not found:
        raise UserError(f"{file} has no {what} in {folder}: add {stem}.png, or leave out --{what}")
    if len(found) > 1:
        raise UserError(
            f"{file} has several {what} in {folder}: move away all but one of {listed(list(map(str, found)))}"
        )
    return found[0]


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Return all jobs, before anything long starts.

    Raises:
        UserError: a file lacks its mask or target, or one would be written over that is read.
    """
    jobs = []
    for name, file, out in files_of(options):
        mask, target = (
            partner(folder, file, options.source, what) if folder else None
            for folder, what in ((options.mask, "mask"), (options.targets, "targets"))
        )
        jobs.append(Job(name, file, out, mask, target))
    inputs = {path.resolve() for job in jobs for path in (job.file, job.mask, job.target) if path}
    folders = {path.resolve() for path in (options.mask, options.targets) if path and path.is_dir()}
    for job in jobs:
        if job.out.resolve() in inputs or job.out.parent.resolve() in folders:
            raise UserError(f"{job.out} would lie among the pictures, masks or targets: pass another --out")
    return jobs


def converted(path: Path, image: Image.Image, mode: str) -> np.ndarray:
    """Return uint8 [H, W, C] in this mode."""
    try:
        array = np.asarray(to_mode(image, mode), np.uint8)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return array[..., None] if array.ndim == 2 else array


def read(task: Any, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a picture as the run's inputs are, and what of it is not transparent, bool [H, W]; None if all is opaque."""
    image = decode_file(path)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's second picture is the same, smaller
        print(f"{path}: only the first of {frames} frames is taken", file=sys.stderr)
    if task.classes:
        return classes_of(path, image, task.classes), None
    opaque = np.asarray(image.convert("RGBA"))[..., 3] > 127 if image.has_transparency_data else None
    if opaque is not None and not opaque.all() and not task.fills:
        print(f"{path}: what is transparent becomes white", file=sys.stderr)
    return converted(path, image, "L" if task.input_channels == 1 else "RGB"), opaque


def holes_of(path: Path) -> np.ndarray:
    """Return where a mask is white, or bright in any colour, bool [H, W]; what is transparent is not."""
    image = decode_file(path)
    if image.has_transparency_data:
        strokes = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", strokes.size, "black"), strokes)
    return converted(path, image, "RGB").max(-1) >= 128


def given(
    options: argparse.Namespace, task: Any, job: Job, number: int, picture: np.ndarray, opaque: Any
) -> tuple[np.ndarray, Any, Any]:
    """Return a picture as the net is to read it, which of its pixels are known, and its target; None for neither."""
    target, known = None, opaque
    if options.degrade:
        target, picture, known = task.degrade(picture, number)
    elif job.mask:
        known = ~holes_of(job.mask)
        if known.shape != picture.shape[:2]:
            raise UserError(
                f"the mask {job.mask} has {known.shape[1]}x{known.shape[0]} pixels, and {job.file} "
                f"{picture.shape[1]}x{picture.shape[0]}: make it as large"
            )
        known = known if opaque is None else known & opaque
    elif options.extend:
        sides = margins(options.extend)
        known = np.pad(np.ones(picture.shape[:2], bool) if opaque is None else opaque, sides)
        picture = np.pad(picture, [*sides, (0, 0)], mode="edge")
    if task.fills and known is None:
        raise UserError(f"this run fills holes, and {job.file} has none: pass --mask=FILE, --extend=..., or --degrade")
    if not task.fills and (options.mask or options.extend):
        raise UserError("this run does not fill holes: leave out --mask and --extend")
    return picture, known if task.fills else None, target


def margins(text: str) -> list[tuple[int, int]]:
    """Parse --extend to ((top, bottom), (left, right))."""
    try:
        top, right, bottom, left = map(int, text.split(","))
        if not 0 <= min(top, right, bottom, left) <= max(top, right, bottom, left) <= MOST:
            raise ValueError
    except ValueError:
        raise UserError(
            f"--extend={text}: four numbers of pixels up to {MOST}, top, right, bottom, left: --extend=0,64,0,64"
        ) from None
    return [(top, bottom), (left, right)]


def scores(made: np.ndarray, target: np.ndarray, scale: int, known: np.ndarray | None) -> dict[str, float]:
    """Return PSNR and SSIM; of holes PSNR within them, too."""
    a, b = made.astype(np.float64), np.broadcast_to(target, made.shape).astype(np.float64)
    found = {}
    if known is not None and not known.all():
        found["psnr_hole"] = min(psnr(a[~known], b[~known]), EQUAL)
    if scale > 1:
        a, b = (luma(x) if x.shape[-1] == 3 else x[..., 0] for x in (a, b))
        a, b = without_border(a, scale), without_border(b, scale)
    return {"psnr": min(psnr(a, b), EQUAL), "ssim": ssim(a, b), **found}


def all_scores(
    task: Any,
    made: np.ndarray,
    unchanged: np.ndarray,
    target: np.ndarray,
    picture: np.ndarray,
    known: np.ndarray | None,
) -> dict[str, float]:
    """Return the scores of the output, of the input as it is, and of holes filled with the nearest known pixel."""
    from gormley_vision.augmentation.degradations import nearest_fill

    found = scores(made, target, task.scale, known)
    if not task.classes:
        found |= {f"given_{key}": x for key, x in scores(unchanged, target, task.scale, known).items()}
    if known is not None and known.any():
        nearest = nearest_fill(picture[None], known[None, ..., None])[0]
        found |= {f"nearest_{key}": x for key, x in scores(nearest, target, task.scale, known).items()}
    return found


def target_of(job: Job, made: np.ndarray) -> np.ndarray:
    """Read the picture that `made` should be.

    Raises:
        UserError: it has another size.
    """
    assert job.target is not None
    target = converted(job.target, decode_file(job.target), "L" if made.shape[-1] == 1 else "RGB")
    if target.shape != made.shape:
        raise UserError(
            f"the target {job.target} has {target.shape[1]}x{target.shape[0]} pixels, and {job.out} "
            f"{made.shape[1]}x{made.shape[0]}: make it as large"
        )
    return target


def main() -> None:
    """Restore, translate, score."""
    options = parse()
    jobs = jobs_of(options)
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore
    from gormley_vision.training.task import Sampled, Translates

    start_jax()
    run = restore(options.workdir, options.step)
    task = run.task
    if not isinstance(task, Translates):
        instead = "scripts/sample.py uses it" if isinstance(task, Sampled) else "pass one of image_to_image"
        raise UserError(f"a run of {run.config['task']} does not translate pictures: {instead}")
    if options.own_size and not task.squeezed_to:
        raise UserError("--own_size: pictures of this run keep their size anyway: leave it out")
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    unread: dict[str, UserError] = {}
    scored = options.degrade or options.targets is not None
    for number, job in enumerate(jobs):
        try:
            original = read(task, job.file)
        except UserError as error:
            if len(jobs) == 1:
                raise
            print(f"{error}; the other pictures go on", file=sys.stderr)
            unread[job.name] = error
            continue
        if scored and min(original[0].shape[:2]) < SMALLEST + 2 * task.scale:
            print(f"{job.file} is left out, and not translated: it is too small to compare", file=sys.stderr)
            left_out.append(job.name)
            continue
        picture, known, target = given(options, task, job, number, *original)
        if known is not None and known.all() == known.any():
            what = "nothing is to be filled" if known.all() else "everything is to be filled"
            print(f"{job.file}: {what}: that is white in a mask", file=sys.stderr)
        made, unchanged = task.translate(run.state, picture, known, tile=options.tile, own_size=options.own_size)
        write_png(job.out, made)
        target = target_of(job, made) if job.target else target
        line = f"{number + 1}/{len(jobs)} {job.out}"
        if target is not None:
            rows.append({"file": job.name, **all_scores(task, made, unchanged, target, picture, known)})
            line += "  " + "  ".join(f"{key} {x:.4f}" for key, x in rows[-1].items() if isinstance(x, float))
        print(line, flush=True)
    if scored and not rows and not unread:
        raise UserError("no picture is large enough to compare: leave out --degrade and --targets to translate them")
    if rows:
        keys = dict.fromkeys(key for row in rows for key in row if key != "file")
        mean = {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}
        print("mean  " + "  ".join(f"{key} {x:.4f}" for key, x in mean.items()))
        if options.json:
            found = {"run": options.workdir.name, "step": run.step, "mean": mean, "pictures": rows}
            write_json(options.json, found | {"left_out": left_out + list(unread)})
    if unread:
        names, first = listed(list(unread)), next(iter(unread.values()))
        raise UserError(f"{len(unread)} of {len(jobs)} pictures could not be read: {names}. The first: {first}")


if __name__ == "__main__":
    with reported():
        main()
