"""Draw samples from a run.

    python scripts/sample.py --workdir=runs/dcgan_mnist --out=samples.png
    python scripts/sample.py --workdir=runs/cdcgan_mnist --label=3 --num=1000 --out=threes.npz
    python scripts/sample.py --workdir=runs/cdcgan_mnist --help

`--out` chooses the form: of pictures, FILE.png is one grid, FILE.npz holds uint8 `images` (and `labels`), and a folder
gets one PNG an image; of texts, FILE.txt, FILE.jsonl or a folder. The same seed gives the same samples however many are
asked for. With `--workdir`, `--help` shows the flags that the run's task adds.
"""

import argparse
from pathlib import Path

from gormley_vision.errors import UserError, reported

with reported():  # what loads now takes a moment
    from gormley_vision import task_modules
    from gormley_vision.config import fault_of
    from gormley_vision.fields import Field
    from gormley_vision.files import read_json, user_path


def parse() -> tuple[argparse.Namespace, dict[str, Field]]:
    """The command line, and the options that the run's task has."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("--workdir", required=True, type=user_path, help="the run's folder")
    parser.add_argument("--out", required=True, help="FILE or FOLDER, by whose name the form is chosen")
    parser.add_argument("--num", type=int, default=64, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="which random draw")
    parser.add_argument("--step", type=int, help="checkpoint (default: the newest one)")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--workdir", type=user_path)
    options = sampling_options(first.parse_known_args()[0].workdir)
    of_task = parser.add_argument_group("of this run's task") if options else parser
    for name, field in options.items():
        if isinstance(field.default, bool):
            of_task.add_argument(f"--{name}", action="store_true", help=field.meaning)
        else:
            of_task.add_argument(
                f"--{name}",
                type=type(field.default),
                default=field.default,
                choices=field.choices or None,
                help=field.meaning,
            )
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    return parser.parse_args(), options


def sampling_options(workdir: Path | None) -> dict[str, Field]:
    """Of the task that `workdir` trains, where there is a run."""
    if workdir is None or not (workdir / "config.json").is_file():
        return {}
    return dict(task_modules.find(read_json(workdir / "config.json")["task"]).SAMPLING)


def main() -> None:
    """Sample and write."""
    options, of_task = parse()
    if not options.out:
        raise UserError("--out= names nothing: write FILE.png, FILE.npz or a folder's name")
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore, sample

    start_jax()
    run = restore(options.workdir, options.step)
    chosen = {name: getattr(options, name) for name in of_task}
    for name, field in of_task.items():
        if fault := fault_of(chosen[name], field):
            raise UserError(f"--{name}={chosen[name]}: {fault} ({field.meaning})")
    samples = sample(run, num=options.num, seed=options.seed, **chosen)
    out = user_path(options.out)
    samples.write(out)
    print(f"{len(samples)} samples of step {run.step} in {out}")


if __name__ == "__main__":
    with reported():
        main()
