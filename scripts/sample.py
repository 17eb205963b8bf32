"""Sample images from a run.

    python scripts/sample.py --workdir=runs/dcgan_mnist --out=samples.png
    python scripts/sample.py --workdir=runs/cdcgan_mnist --label=3 --num=1000 --out=threes.npz

`--out` chooses the form: FILE.png is one grid, FILE.npz holds uint8 `images` (and `labels`), and a folder
gets one PNG an image. The same seed gives the same images however many are asked for.
"""

import argparse
from pathlib import Path

from gormley_vision.errors import UserError, reported
from gormley_vision.files import user_path


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=user_path, help="the run's folder")
    parser.add_argument("--out", required=True, type=user_path, help="FILE.png, FILE.npz, or a folder")
    parser.add_argument("--num", type=int, default=64, help="images (walks, with --interpolate: rows of 8)")
    parser.add_argument("--seed", type=int, default=0, help="which noise")
    parser.add_argument("--label", help="one class of a conditional run, by name or number (default: all in turn)")
    parser.add_argument("--interpolate", action="store_true", help="walk between pairs of noise vectors")
    parser.add_argument("--step", type=int, help="checkpoint (default: the newest whole one)")
    parser.add_argument("--raw", action="store_true", help="the generator itself, not its moving average")
    return parser.parse_args()


def main() -> None:
    """Sample and write."""
    options = parse()
    if options.num < 1:
        raise UserError(f"--num={options.num}: at least 1")
    if options.out.suffix not in ("", ".png", ".npz"):
        raise UserError(f"--out={options.out}: write FILE.png, FILE.npz or a folder's name")
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import interpolate, restore, sample

    start_jax()
    run = restore(options.workdir, options.step)
    choice = {"seed": options.seed, "label": options.label, "raw": options.raw}
    if options.interpolate:
        columns = 8
        images, labels = interpolate(run, rows=-(-options.num // columns), columns=columns, **choice)
    else:
        images, labels = sample(run, num=options.num, **choice)
        columns = max(1, round(len(images) ** 0.5))
        if labels is not None and options.label is None and options.out.suffix == ".png":  # one class a row
            order = labels.argsort(kind="stable")
            images, columns = images[order], -(-len(images) // run.gan.classes)
    write(options.out, images, labels, run.class_names, columns)
    print(f"{len(images)} images of step {run.step} in {options.out}")


def write(out: Path, images, labels, class_names: tuple[str, ...], columns: int) -> None:
    """Write float images [n, H, W, C] in [-1, 1] in the form that `out` asks for, each file atomically."""
    from io import BytesIO

    import numpy as np

    from gormley_vision.files import write_atomically
    from gormley_vision.training.pictures import tile, to_uint8, write_png

    pixels = to_uint8(images)
    if out.suffix == ".png":
        write_png(out, tile(pixels, columns))
    elif out.suffix == ".npz":
        buffer = BytesIO()
        named = {} if labels is None else {"labels": labels, "class_names": np.array(class_names)}
        np.savez(buffer, images=pixels, **named)
        write_atomically(out, buffer.getvalue())
    else:
        for index, image in enumerate(pixels):
            name = f"{index:06d}.png" if labels is None else f"{index:06d}_class{labels[index]}.png"
            write_png(out / name, image)


if __name__ == "__main__":
    with reported():
        main()
