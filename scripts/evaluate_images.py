"""Compare images with real ones by a network's features: a GAN run's samples, or a folder or .npz file of anybody's.

    python scripts/evaluate.py --workdir=RUN --extractor=run:CLASSIFIER [--num=10000] [--best] [--out=CARD.json]
    python scripts/evaluate.py --workdir=RUN --extractor=... --held_out=test --neighbours=copies.png
    python scripts/evaluate.py --samples=DIR --real=DIR --extractor=inception:FILE.safetensors

Prints a card: JSON with the figures (docs/metrics.md) and all that they depend on, which scripts/compare.py --cards
compares with others. Real images are those of the run's training, or of `--real`: a folder, an .npz file, or a run's
folder for that run's data; `--split` names another part. With `--held_out` real images that were not trained on are
measured in the same way, and nearest training images tell whether samples are copies. `--best` also measures the
checkpoint with the smallest eval/frechet_distance in training, which was computed of other samples than these.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gormley_vision.errors import UserError, reported

with reported():  # what loads now takes a moment
    from gormley_vision.config import run_config
    from gormley_vision.fields import IMAGE_FIELDS, RUN_FIELDS
    from gormley_vision.files import path_flag, refuse_unwritable, user_path, write_json
    from gormley_vision.sampling_flags import add_sampling_flags

CHUNK = 1024  # samples in memory at once
FORMS = {"inception": "inception:FILE.safetensors", "cifar_resnet": "cifar_resnet:FILE.npz", "run": "run:FOLDER"}
SHOWN, NEIGHBOURS = 10, 5  # samples in the picture, and training images beside each


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False, allow_abbrev=False
    )
    parser.add_argument("--workdir", type=path_flag, help="the folder of a run that generates images")
    parser.add_argument("--samples", type=path_flag, help="a folder or .npz file of images, instead of a run")
    parser.add_argument("--real", type=path_flag, help="a folder, an .npz file, or a run (default: of --workdir)")
    parser.add_argument("--extractor", required=True, help=" or ".join(FORMS.values()))
    parser.add_argument("--split", help="part of the real images (default: that of the run, or train)")
    parser.add_argument("--held_out", help="another part, which was not trained on")
    parser.add_argument("--image_size", type=int, help="of --samples and --real, pixels (default: theirs)")
    parser.add_argument("--num", type=int, help="samples of a run (default: 10000)")
    parser.add_argument("--seed", type=int, help="seed of the noise (default: 0)")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest one)")
    parser.add_argument("--best", action="store_true", help="also measure the checkpoint that was best in training")
    parser.add_argument("--neighbours", type=path_flag, help="write a picture of samples and nearest training images")
    parser.add_argument("--out", type=path_flag, help="also write the card to this JSON file")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--workdir", type=path_flag)
    fields = add_sampling_flags(parser, first.parse_known_args()[0].workdir)
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    options = parser.parse_args()
    options.chosen = {name: getattr(options, name) for name in fields}
    options.unusual = {name: value for name, value in options.chosen.items() if value != fields[name].default}
    if (options.workdir is None) == (options.samples is None):
        raise UserError("pass either --workdir=RUN or --samples=FOLDER_OR_NPZ")
    if options.samples and not options.real:
        raise UserError("--samples needs --real=FOLDER, FILE.npz or RUN: the images they are compared with")
    of_runs = {name: getattr(options, name) for name in ("step", "num", "seed")} | {"best": options.best or None}
    if options.samples and (given := [f"--{name}" for name, value in of_runs.items() if value is not None]):
        raise UserError(f"{' and '.join(given)}: of runs, so leave them out with --samples")
    if options.workdir and options.image_size is not None:
        raise UserError("--image_size is of --samples: a run's samples, and images beside them, are of its own size")
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"--image_size={options.image_size}: at least 1 pixel")
    options.num, options.seed = 10_000 if options.num is None else options.num, options.seed or 0
    if options.num < 2:
        raise UserError(f"--num={options.num}: at least 2 samples")
    if options.unusual.get("interpolate"):
        raise UserError("--interpolate makes rows of images between two: leave it out")
    if options.neighbours and options.neighbours.suffix.lower() != ".png":
        raise UserError(f"--neighbours={options.neighbours}: the picture is a PNG file, so name it FILE.png")
    for path in (options.out, options.neighbours):
        if path:
            refuse_unwritable(path)
    form, _, file = options.extractor.partition(":")  # what it is, only jax can tell
    if form not in FORMS or not file:
        raise UserError(f"extractor {options.extractor!r}: name one of {', '.join(FORMS.values())}")
    if not user_path(file).exists():
        raise UserError(f"--extractor={options.extractor}: {file} does not exist; name {FORMS[form]}")
    return options


def data_of(path: Path, split: str, image_size: int | None) -> dict[str, Any]:
    """Return the data section for a folder or an .npz file of images; image_size None: as they are."""
    from gormley_vision.data.shapes import is_npz, shape_of

    defaults = {**RUN_FIELDS, **IMAGE_FIELDS}
    data = {key.removeprefix("data."): field.default for key, field in defaults.items() if key.startswith("data.")}
    source, (height, width, channels) = "npz" if is_npz(path) else "folder", shape_of(path, split)
    split = "train" if source == "npz" and not split else split  # without one, a folder is all of its pictures
    data |= {"source": source, "path": str(path), "split": split, "placement": "host"}
    return data | {"image_size": image_size or min(height, width), "channels": channels}


class Sets(NamedTuple):
    """What is compared: opened and found to fit before anything is measured."""

    run: Any  # None for files
    samples: Any  # batches; None for a run
    samples_data: Mapping[str, Any]
    real: Any  # batches
    real_data: Mapping[str, Any]
    held_out: Any  # batches, or None
    extractor: Any


def open_sets(options: argparse.Namespace) -> Sets:
    """Open the samples or their run, the real images, and the extractor."""
    where = options.real or options.workdir
    is_run = not options.real or (where / "config.json").is_file()
    samples = options.samples and data_of(options.samples, "", options.image_size)
    real = run_data(where, options.split) if is_run else data_of(where, options.split or "train", options.image_size)
    # What was wrong so far was said without jax, whose import takes seconds.
    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.extractors import open_extractor
    from gormley_vision.run import start_jax

    start_jax()
    run = None if samples else open_run(options)
    data = samples or run_data(options.workdir, "")
    if not is_run:
        real["image_size"] = data["image_size"]
        if real["source"] == "folder":
            real["channels"] = data["channels"] if run else max(real["channels"], data["channels"])
    if samples and samples["source"] == "folder":
        samples["channels"] = max(samples["channels"], real["channels"])
    if real["channels"] != data["channels"]:
        grey, colour = ("real images", "samples") if real["channels"] == 1 else ("samples", "real images")
        raise UserError(f"{grey} are grey and {colour} in colour: pass others")
    if (side := real["image_size"]) != data["image_size"]:
        raise UserError(
            f"real images have {side} pixels and the samples {data['image_size']}: pass others"
            + (f", or --image_size={side}" if samples else "")
        )
    extractor = open_extractor(options.extractor)
    option = "--image_size" if samples and not is_run else ""
    real_batches = opened(real, {"split": "--split", "path": "--real"})
    evaluation.refuse_unfit(extractor, real_batches, "the real images", option)
    sample_batches = opened(samples, {"path": "--samples"}) if samples else None
    if sample_batches:
        evaluation.refuse_unfit(extractor, sample_batches, "--samples", option)
    held_out = open_held_out(options, run, real_batches, real) if options.held_out else None
    return Sets(run, sample_batches, data, real_batches, real, held_out, extractor)


def run_data(workdir: Path, split: str) -> dict[str, Any]:
    """Return the data section of a run of images, of the part that it was trained on or of another `split`."""
    data = run_config(workdir)["data"]
    if "image_size" not in data:
        raise UserError(f"{workdir} is a run without images: pass the folder of one with images, or files")
    return {**data, "split": split or data["split"], "placement": "host"}


def open_run(options: argparse.Namespace) -> Any:
    """Restore the run.

    Raises:
        UserError: it does not generate images.
    """
    from gormley_vision import task_modules
    from gormley_vision.sampling import restore
    from gormley_vision.training.task import Generates

    run = restore(options.workdir, options.step)
    task = run.config["task"]
    if not isinstance(run.task, Generates) or "image" not in task_modules.find(task).needs(run.config):
        raise UserError(
            f"{options.workdir} is a {task} run that does not generate images, so nothing of it can be compared here; "
            "scripts/mode_coverage.py counts modes of points"
        )
    return run


def opened(data: Mapping[str, Any], flags: Mapping[str, str]) -> Any:
    """Open images. Errors name our `flags` {key: flag}: sources only know the keys of a config."""
    from gormley_vision.data.batches import open_batches

    try:
        data = {**data, "batch_size": batch_size()}
        return open_batches(seed=0, minibatches=1, data=data, needs={"image": "image"})
    except UserError as error:
        advice = str(error)
        for key, flag in flags.items():
            advice = advice.replace(f"--config.data.{key}=", f"{flag}=")
        raise UserError(advice) from None


def open_held_out(options: argparse.Namespace, run: Any, real: Any, real_data: Mapping[str, Any]) -> Any:
    """Open the part of the real images that was not trained on.

    Raises:
        UserError: there is none, or it was trained on.
    """
    from gormley_vision import experiment

    split, used = options.held_out, real_data["split"]
    try:
        batches = opened({**real_data, "split": split}, {})
    except UserError as error:
        raise UserError(experiment.held_out_advice(str(error), used, "--held_out")) from None
    if experiment.overlap((used, real), (split, batches)) or (run and split == run.config["data"]["split"]):
        raise UserError(f"--held_out={split} is no held-out part: {experiment.cut(used, '--held_out')}")
    if batches.length < 2:
        raise UserError(f"--held_out={split} has {batches.length} image: at least 2")
    return batches


def batch_size() -> int:
    """Return a number of images that divides over the devices."""
    import jax

    return -(-64 // jax.device_count()) * jax.device_count()


def sampled(run: Any, options: argparse.Namespace) -> Iterator[Any]:
    """Yield a run's samples as uint8 images and labels, in parts of at most `batch_size()`."""
    from gormley_vision.samples import to_uint8
    from gormley_vision.sampling import sample

    for first in range(0, options.num, CHUNK):
        num = min(CHUNK, options.num - first)
        found: Any = sample(run, num=num, seed=options.seed, first=first, **options.chosen)
        images = to_uint8(found.images)
        for i in range(0, num, batch_size()):
            part = slice(i, i + batch_size())
            yield images[part], None if found.labels is None else found.labels[part]


def measure(options: argparse.Namespace, sets: Sets, features: Any, real: Any) -> dict[str, Any]:
    """Return the card of a run's samples, or of the files. `real` is the summary of the real images."""
    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.metrics import image_sets

    fake: dict[str, Any] = {"quantisation": evaluation.QUANTISATION}
    if sets.run is None:
        batches, names = sets.samples, sets.samples.class_names
        summary = features.summary(evaluation.in_random_order(batches), batches.length)
        fake |= {"count": batches.length, "options": {}, "sha256": batches.sha256}
        fake |= {name: sets.samples_data[name] for name in ("path", "image_size", "channels", "crop", "resize_filter")}
    else:
        summary, names = features.summary(sampled(sets.run, options), options.num), sets.run.class_names
        fake |= evaluation.of_run(sets.run.config) | {
            "count": options.num,
            "options": options.unusual,
            "run": options.workdir.name,
            "step": sets.run.step,
            "sampling_seed": options.seed,
        }
    figures, more = image_sets.figures(real, summary), {}
    if sets.real.class_names == names and summary.by_class:
        more["by_class"] = image_sets.by_class(real, summary, names)
    if sets.held_out:
        more["held_out"], copied = held_out(options, sets, features, real, summary)
        figures["nearer_than_held_out"] = copied
    described = evaluation.described(sets.real, sets.real_data)
    return evaluation.card(sets.extractor, described, fake, figures, **more, command=shlex.join(["python", *sys.argv]))


def held_out(
    options: argparse.Namespace, sets: Sets, features: Any, real: Any, fake: Any
) -> tuple[dict[str, Any], float]:
    """Return the figures of real images that were not trained on, and how often a sample is nearer to training ones."""
    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.metrics import image_sets
    from gormley_vision.metrics.neighbours import memorised, nearest

    count = sets.held_out.length
    summary = features.summary(evaluation.in_random_order(sets.held_out), count)
    distances = [nearest(x.kept, real.kept)[1][:, 0] for x in (fake, summary)]
    found = {"split": options.held_out, "count": count, "figures": image_sets.figures(real, summary)}
    return found, memorised(*distances)


def draw_neighbours(options: argparse.Namespace, sets: Sets, features: Any, real: Any) -> None:
    """Draw samples, each beside the training images that are nearest to it by the features."""
    import numpy as np

    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.metrics.neighbours import nearest
    from gormley_vision.samples import tile, write_png

    parts = sampled(sets.run, options) if sets.run else evaluation.in_random_order(sets.samples)
    images = next(iter(parts))[0][:SHOWN]
    found, _ = features(images)
    order = evaluation.random_order(sets.real)
    which, _ = nearest(found, real.kept, min(NEIGHBOURS, len(real.kept)))
    rows = [[image[None], sets.real.examples(order[i])["image"]] for image, i in zip(images, which, strict=True)]
    pictures = np.concatenate([part for row in rows for part in row])
    write_png(options.neighbours, tile(pictures, 1 + which.shape[1]))


def main() -> None:
    """Measure, and print the card."""
    options = parse()
    sets = open_sets(options)
    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.training.sharding import Shardings, make_mesh

    best = evaluation.best_step(options.workdir) if options.best else None
    mesh = make_mesh({"data": 0, "fsdp": 1, "tensor": 1}, batch_size())
    features = evaluation.Features(sets.extractor, Shardings(mesh, ()), batch_size())
    real = features.summary(evaluation.in_random_order(sets.real), sets.real.length)
    card = measure(options, sets, features, real)
    few = {"real images": card["real"]["count"], f"samples{' (raise --num)' * bool(sets.run)}": card["fake"]["count"]}
    if by_class := card.get("by_class"):
        few["images of a class"] = min(min(found["real"], found["fake"]) for found in by_class.values())
    evaluation.warn_of_few(real.kept.shape[1], few)
    if options.neighbours:
        draw_neighbours(options, sets, features, real)
    if best is not None:
        from gormley_vision.sampling import restore

        same = best == sets.run.step
        at_best = card if same else measure(options, sets._replace(run=restore(options.workdir, best)), features, real)
        card["best_in_training"] = {"step": best, "figures": at_best["figures"]}
    print(json.dumps(card, indent=1))
    if options.out:
        write_json(options.out, card)


if __name__ == "__main__":
    with reported():
        main()
