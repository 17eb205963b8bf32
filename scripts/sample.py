"""Draw samples from a run.

    python scripts/sample.py --workdir=runs/dcgan_mnist --out=samples.png
    python scripts/sample.py --workdir=runs/cdcgan_mnist --label=3 --num=1000 --out=threes.npz
    python scripts/sample.py --workdir=runs/cdcgan_mnist --help

`--out` gives the format: for pictures, FILE.png is one grid, FILE.npz has uint8 `images` (and `labels`), and a folder
gets one PNG per image; for texts, FILE.txt, FILE.jsonl or a folder. The same seed gives the same samples however many
are requested. With `--workdir`, `--help` shows the flags that the run's task adds.
"""

import argparse
from pathlib import Path

from gormley_vision.errors import UserError, reported

with reported():  # what loads now takes a moment
    from gormley_vision import task_modules
    from gormley_vision.config import run_config
    from gormley_vision.fields import Field
    from gormley_vision.files import user_path


def parse() -> tuple[argparse.Namespace, dict[str, Field]]:
    """Parse the command line. Returns it, and the options of the run's task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("--workdir", required=True, type=user_path, help="the run's folder")
    parser.add_argument("--out", required=True, help="FILE or FOLDER; its suffix gives the format")
    parser.add_argument("--num", type=int, default=64, help="number of samples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random draws")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest one)")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--workdir", type=user_path)
    options = sampling_options(first.parse_known_args()[0].workdir)
    group = parser.add_argument_group("options of this run's task") if options else parser
    for name, field in options.items():
        if isinstance(field.default, bool):
            group.add_argument(f"--{name}", action="store_true", help=field.meaning)
        else:
            group.add_argument(
                f"--{name}",
                type=type(field.default),
                default=field.default,
                choices=field.choices or None,
                help=field.meaning,
            )
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    return parser.parse_args(), options


def sampling_options(workdir: Path | None) -> dict[str, Field]:
    """Return the sampling options of the run's task; {} if there is no run in `workdir`."""
    if workdir is None or not (workdir / "config.json").is_file():
        return {}
    return dict(task_modules.find(run_config(workdir)["task"]).SAMPLING)


def main() -> None:
    """Sample and write."""
    options, task_options = parse()
    if not options.out:
        raise UserError("--out= is empty: write FILE.png, FILE.npz or a folder's name")
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore, sample

    start_jax()
    run = restore(options.workdir, options.step)
    chosen = {name: getattr(options, name) for name in task_options}
    samples = sample(run, num=options.num, seed=options.seed, **chosen)
    out = user_path(options.out)
    samples.write(out)
    print(f"{len(samples)} samples of step {run.step} in {out}")


if __name__ == "__main__":
    with reported():
        main()
