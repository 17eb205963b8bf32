"""Draw samples from a run.

    python scripts/sample.py --workdir=runs/dcgan_mnist --out=samples.png
    python scripts/sample.py --workdir=runs/cdcgan_mnist --label=3 --num=1000 --out=threes.npz
    python scripts/sample.py --workdir=runs/lm_shakespeare --prompt="ROMEO:" --temperature=0.8
    python scripts/sample.py --workdir=runs/cdcgan_mnist --help

`--out` gives the format: for pictures, FILE.png is one grid, FILE.npz has uint8 `images` (and `labels`), and a folder
gets one PNG per image; for texts, FILE.txt, FILE.jsonl or a folder. Without it texts are printed; a single one as it is
generated. The same seed gives the same samples however many are requested. With `--workdir`, `--help` shows the flags
that the run's task adds.
"""

import argparse
from typing import Any

from gormley_vision.errors import UserError, listed, reported

with reported():  # what loads now takes a moment
    from gormley_vision.config import run_config
    from gormley_vision.fields import Field
    from gormley_vision.files import path_flag, user_path
    from gormley_vision.sampling_flags import add_sampling_flags


def parse() -> tuple[argparse.Namespace, dict[str, Field]]:
    """Parse the command line. Returns it, and the options of the run's task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("--workdir", required=True, type=path_flag, help="the run's folder")
    parser.add_argument("--out", help="FILE or FOLDER; its suffix gives the format (default: print texts)")
    parser.add_argument("--num", type=int, help="number of samples (default: 64, or 1 without --out)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random draws")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest one)")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--workdir", type=path_flag)
    options = add_sampling_flags(parser, first.parse_known_args()[0].workdir)
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    known, unknown = parser.parse_known_args()
    if unknown and known.workdir and (known.workdir / "config.json").is_file() and not options:
        task = run_config(known.workdir)["task"]
        raise UserError(f"a run of {task} has no option {listed(unknown)}: leave it out, or pass another run")
    return parser.parse_args(), options


def show(run: Any, options: argparse.Namespace, chosen: dict[str, Any]) -> None:
    """Print texts: a single one as it is generated."""
    from gormley_vision.samples import Texts
    from gormley_vision.sampling import sample, stream

    pieces = stream(run, seed=options.seed, **chosen)
    if pieces is None:  # before anything is drawn
        raise UserError("pictures are written to files: --out=FILE.png, --out=FILE.npz or --out=FOLDER")
    if options.num in (None, 1):
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    samples = sample(run, num=options.num, seed=options.seed, **chosen)
    assert isinstance(samples, Texts)
    print(samples.joined(), end="")


def main() -> None:
    """Sample and write."""
    options, task_options = parse()
    if options.out == "":
        raise UserError("--out= is empty: write FILE.png, FILE.npz or a folder's name")
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore, sample

    start_jax()
    run = restore(options.workdir, options.step)
    chosen = {name: getattr(options, name) for name in task_options}
    if options.out is None:
        show(run, options, chosen)
        return
    samples = sample(run, num=64 if options.num is None else options.num, seed=options.seed, **chosen)
    out = user_path(options.out)
    samples.write(out)
    print(f"{len(samples)} samples of step {run.step} in {out}")


if __name__ == "__main__":
    with reported():
        main()
