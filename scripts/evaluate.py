"""Evaluate a run on a data set, for instance a classifier's accuracy, at its own resolution or another.

    python scripts/evaluate.py --workdir=RUN [--split=test] [--image_size=42] [--rope_scaling=interpolate] [--step=N]
    python scripts/evaluate.py --workdir=RUN --data_path=photos --config.data.crop=none

Any key of the run's `data` section can be set, for data stored elsewhere. Classes are matched by name: a data set with
some of the run's classes is evaluated on these, and one with other classes is refused. At another resolution images are
resized (data.resize_filter), and learned positions, too (--position_resize); rotary ones extend beyond the trained
grid, unchanged or by a rule. With `--workdir`, `--help` shows the flags that the run's task adds. Prints one JSON line;
`--out` also writes it.

With `--extractor` a GAN's samples, or files (`--samples`), are compared with real images: evaluate_images.py, whose
flags `--extractor --help` shows.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError, reported

with reported():  # what loads now takes a moment
    from gormley_vision import task_modules
    from gormley_vision.config import fields_of, run_config, validate
    from gormley_vision.files import path_flag, refuse_unwritable, write_json


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line: our flags, and words of the form --config.KEY=VALUE."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False, allow_abbrev=False
    )
    parser.add_argument("--workdir", required=True, type=path_flag, help="the run's folder")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest one)")
    parser.add_argument("--split", help="part of the data set (default: the run's eval.split)")
    parser.add_argument("--data_path", help="where the data are now (default: as in training)")
    parser.add_argument("--image_size", type=int, help="height and width of images in pixels (default: as in training)")
    parser.add_argument("--out", type=path_flag, help="also write the line to this JSON file")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--workdir", type=path_flag)
    for flag, (key, field) in task_flags(first.parse_known_args()[0].workdir).items():
        default = str(field.default)
        parser.add_argument(f"--{flag}", dest=key, default=default, choices=field.choices, help=field.meaning)
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    return parser.parse_known_args()


def task_flags(workdir: Path | None) -> dict[str, Any]:
    """Return {flag: (key, its field)} of the run's task; {} if there is no run in `workdir`."""
    if workdir is None or not (workdir / "config.json").is_file():
        return {}
    config = run_config(workdir)
    return {flag: (key, fields_of(config)[key]) for flag, key in task_modules.find(config["task"]).EVALUATION.items()}


def evaluation_config(trained: dict[str, Any], options: argparse.Namespace, words: list[str]) -> dict[str, Any]:
    """Return the run's config with the command line's changes, as if it started from the run's weights."""
    from gormley_vision.command_line import override

    flags = {"split": options.split, "path": options.data_path, "image_size": options.image_size}
    given = {key: value for key, value in flags.items() if value is not None}
    for key in given:
        if any(word.startswith(f"--config.data.{key}") for word in words):
            raise UserError(f"data.{key} is given twice, as a flag and as --config.data.{key}: leave one out")
    words = [*words, *(f"--config.data.{key}={value}" for key, value in given.items())]
    if trained["eval"]["split"] and not any(word.startswith("--config.data.split") for word in words):
        words.append(f"--config.data.split={trained['eval']['split']}")
    if any(word.lstrip("-").startswith(("config.data.flip", "noconfig.data.flip")) for word in words):
        raise UserError("data.flip only applies to training: leave it out")
    task = task_modules.find(trained["task"])
    try:
        config = override(trained, ["--config.data.placement=host", *words], "data")
        for key in task.EVALUATION.values():
            section, _, name = key.partition(".")
            config[section][name] = getattr(options, key)
        config["init_from"] = str(options.workdir)
        task.evaluated(config, trained)
        validate(config)
    except UserError as error:
        raise UserError(f"{error}\nThis script accepts --config.data.KEY=VALUE and the flags of --help") from None
    return config


def main() -> None:
    """Restore the run, change the data or the resolution, evaluate."""
    options, words = parse()
    if options.out:
        refuse_unwritable(options.out)
    import json

    from gormley_vision import experiment
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import adapted, restore
    from gormley_vision.training.evaluation import Evaluation
    from gormley_vision.training.sharding import Shardings, make_mesh
    from gormley_vision.training.task import Evaluated

    start_jax()
    run = restore(options.workdir, options.step)
    if not isinstance(run.task, Evaluated):
        raise UserError(
            f"a run of {run.config['task']} cannot be evaluated on a data set; if it generates images, "
            "--extractor=run:CLASSIFIER compares them with real ones (docs/metrics.md)"
        )
    config = evaluation_config(run.config, options, words)
    batches = experiment.make_batches(config, class_names=run.class_names)
    task, state = adapted(run, config, batches.description)
    one_device = make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, batches.batch_size)
    figures = Evaluation(task, batches, every=0)(state, Shardings(one_device, ()))
    assert figures is not None  # it is not stopped
    result = {name.removeprefix("eval/"): round(figure, 4) for name, figure in figures.items()}
    result |= {
        "images" if batches.image_shape else "examples": batches.length,
        **({"classes": len(batches.classes_present() or run.class_names)} if run.class_names else {}),
        **{key: config["data"][key] for key in ("split", "image_size") if key in config["data"]},
        **{flag: getattr(options, key) for flag, key in task_modules.find(config["task"]).EVALUATION.items()},
        "step": run.step,
    }
    print(json.dumps(result))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    with reported():
        if any(word.split("=")[0] in ("--samples", "--extractor") for word in sys.argv[1:]):
            from evaluate_images import main
        main()
