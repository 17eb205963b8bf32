"""Compare images with real ones by a network's features: a GAN run's samples, or a folder or .npz file of anybody's.

    python scripts/evaluate.py --workdir=RUN --extractor=run:CLASSIFIER [--num=10000] [--best] [--out=CARD.json]
    python scripts/evaluate.py --workdir=RUN --extractor=... --held_out=test --neighbours=copies.png
    python scripts/evaluate.py --samples=DIR --real=DIR --extractor=inception:FILE.safetensors

Prints a card: JSON with the figures (docs/metrics.md) and all that they depend on, which scripts/compare.py --cards
compares with others. Real images are those of the run's training, or of `--real`: a folder, an .npz file, or a run's
folder for that run's data. With `--held_out` real images that were not trained on are measured in the same way, and
nearest training images tell whether samples are copies. `--best` also measures the checkpoint with the smallest
eval/frechet_distance in training, which was computed of other samples than these.
"""

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError, reported

with reported():  # what loads now takes a moment
    from gormley_vision.config import run_config
    from gormley_vision.fields import IMAGE_FIELDS, RUN_FIELDS
    from gormley_vision.files import refuse_unwritable, user_path, write_json
    from gormley_vision.sampling_flags import add_sampling_flags

CHUNK = 1024  # samples in memory at once
SHOWN, NEIGHBOURS = 10, 5  # samples in the picture, and training images beside each


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False, allow_abbrev=False
    )
    parser.add_argument("--workdir", type=user_path, help="the folder of a run that generates images")
    parser.add_argument("--samples", type=user_path, help="a folder or .npz file of images, instead of a run")
    parser.add_argument("--real", type=user_path, help="a folder, an .npz file, or a run (default: of --workdir)")
    parser.add_argument("--extractor", required=True, help="inception:FILE, cifar_resnet:FILE or run:FOLDER")
    parser.add_argument("--split", default="train", help="part of the real images (default: train)")
    parser.add_argument("--held_out", default="", help="another part, which was not trained on")
    parser.add_argument("--image_size", type=int, default=0, help="of --samples and --real, pixels (default: theirs)")
    parser.add_argument("--num", type=int, default=10_000, help="samples of a run (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest one)")
    parser.add_argument("--best", action="store_true", help="also measure the checkpoint that was best in training")
    parser.add_argument("--neighbours", type=user_path, help="write a picture of samples and nearest training images")
    parser.add_argument("--out", type=user_path, help="also write the card to this JSON file")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--workdir", type=user_path)
    fields = add_sampling_flags(parser, first.parse_known_args()[0].workdir)
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    options = parser.parse_args()
    options.chosen = {name: getattr(options, name) for name in fields}
    options.unusual = {name: value for name, value in options.chosen.items() if value != fields[name].default}
    if (options.workdir is None) == (options.samples is None):
        raise UserError("pass either --workdir=RUN or --samples=FOLDER_OR_NPZ")
    if options.samples and not options.real:
        raise UserError("--samples needs --real=FOLDER, FILE.npz or RUN: the images they are compared with")
    if options.samples and (options.best or options.step is not None):
        raise UserError("--step and --best are of runs: leave them out with --samples")
    if options.num < 2:
        raise UserError(f"--num={options.num}: at least 2 samples")
    for path in (options.out, options.neighbours):
        if path:
            refuse_unwritable(path)
    return options


def data_of(path: Path, split: str, image_size: int, channels: int = 0) -> dict[str, Any]:
    """Return the data section for a folder or an .npz file of images; 0: as they are."""
    import numpy as np
    from PIL import Image

    from gormley_vision.data.folder_listing import image_suffixes

    defaults = {**RUN_FIELDS, **IMAGE_FIELDS}
    data = {key.removeprefix("data."): field.default for key, field in defaults.items() if key.startswith("data.")}
    if path.suffix.lower() == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                height, width, found = file["images"].shape[1:]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} has no uint8 array 'images' [N, H, W, C] ({error})") from None
        source = "npz"
    else:
        first = next((file for file in sorted(path.rglob("*")) if file.suffix.lower() in image_suffixes()), None)
        if first is None:
            raise UserError(f"{path} has no images: pass a folder of pictures, or an .npz file")
        try:
            with Image.open(first) as picture:
                (width, height), found = picture.size, 1 if picture.mode in ("1", "L", "I;16") else 3
        except OSError as error:
            raise UserError(f"{first} cannot be read: {error}") from None
        source = "folder"
    data |= {"source": source, "path": str(path), "split": split, "placement": "host"}
    return data | {"image_size": image_size or min(height, width), "channels": channels or found}


def open_real(options: argparse.Namespace, split: str, like: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Open real images, as the samples are. Returns the batches, and the data section that describes them."""
    from gormley_vision.data.batches import open_batches

    where = options.real or options.workdir
    if (where / "config.json").is_file():
        data = {**run_config(where)["data"], "split": split, "placement": "host"}
    else:
        data = data_of(where, split, like["image_size"], like["channels"])
    data["batch_size"] = batch_size()
    try:
        batches = open_batches(seed=0, minibatches=1, data=data, needs={"image": "image"})
    except UserError as error:  # sources only know the keys of a config
        flag = "held_out" if split == options.held_out else "split"
        advice = str(error).replace("--config.data.split=", f"--{flag}=").replace("data.split=", f"--{flag}=")
        raise UserError(advice.replace("--config.data.path=", "--real=")) from None
    if batches.image_shape[0] != like["image_size"]:
        raise UserError(
            f"real images have {batches.image_shape[0]} pixels and the samples {like['image_size']}: pass others, or "
            "--image_size with --samples"
        )
    return batches, data


def batch_size() -> int:
    """Return a number of images that divides over the devices."""
    import jax

    return -(-64 // jax.device_count()) * jax.device_count()


def sampled(run: Any, options: argparse.Namespace) -> Iterator[Any]:
    """Yield a run's samples as uint8 images and labels, in parts of at most `batch_size()`."""
    from gormley_vision.samples import Pictures, to_uint8
    from gormley_vision.sampling import sample

    for first in range(0, options.num, CHUNK):
        num = min(CHUNK, options.num - first)
        found = sample(run, num=num, seed=options.seed, first=first, **options.chosen)
        if not isinstance(found, Pictures):
            raise UserError(
                f"{options.workdir} does not generate images: scripts/mode_coverage.py counts modes of points"
            )
        if len(found) != num:
            raise UserError(f"with these options {num} samples become {len(found)}: leave out --interpolate")
        images = to_uint8(found.images)
        for i in range(0, num, batch_size()):
            part = slice(i, i + batch_size())
            yield images[part], None if found.labels is None else found.labels[part]


def measure(options: argparse.Namespace, run: Any, tools: Any) -> dict[str, Any]:
    """Return the card of a run's samples, or of the files."""
    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.metrics import image_sets

    extractor, features, real_batches, real_data, real = tools
    fake: dict[str, Any] = {"quantisation": evaluation.QUANTISATION}
    if run is None:
        batches, data = open_files(options)
        summary, names = features.summary(evaluation.in_random_order(batches), batches.length), batches.class_names
        fake |= {"count": batches.length, "options": {}, "path": data["path"], "sha256": batches.sha256}
    else:
        summary, names = features.summary(sampled(run, options), options.num), run.class_names
        fake |= evaluation.of_run(run.config) | {
            "count": options.num,
            "options": options.unusual,
            "run": options.workdir.name,
            "step": run.step,
            "sampling_seed": options.seed,
        }
    figures, more = image_sets.figures(real, summary), {}
    if real_batches.class_names == names and summary.by_class:
        more["by_class"] = image_sets.by_class(real, summary, real_batches.class_names)
    if options.held_out:
        more["held_out"], copied = held_out(options, tools, summary)
        figures["nearer_than_held_out"] = copied
    if options.neighbours:
        draw_neighbours(options, run, tools)
    described = evaluation.described(real_batches, real_data)
    return evaluation.card(extractor, described, fake, figures, **more, command=shlex.join(["python", *sys.argv]))


def open_files(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Open the images of --samples."""
    from gormley_vision.data.batches import open_batches

    data = data_of(options.samples, "train", options.image_size) | {"batch_size": batch_size()}
    return open_batches(seed=0, minibatches=1, data=data, needs={"image": "image"}), data


def held_out(options: argparse.Namespace, tools: Any, fake: Any) -> tuple[dict[str, Any], float]:
    """Return the figures of real images that were not trained on, and how often a sample is nearer to training ones."""
    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.metrics import image_sets
    from gormley_vision.metrics.neighbours import memorised, nearest

    _, features, _, real_data, real = tools
    batches, _ = open_real(options, options.held_out, real_data)
    summary = features.summary(evaluation.in_random_order(batches), batches.length)
    distances = [nearest(x.kept, real.kept)[1][:, 0] for x in (fake, summary)]
    found = {"split": options.held_out, "count": batches.length, "figures": image_sets.figures(real, summary)}
    return found, memorised(*distances)


def draw_neighbours(options: argparse.Namespace, run: Any, tools: Any) -> None:
    """Draw samples, each beside the training images that are nearest to it by the features."""
    import numpy as np

    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.metrics.neighbours import nearest
    from gormley_vision.samples import tile, write_png

    _, features, batches, _, real = tools
    parts = sampled(run, options) if run else evaluation.in_random_order(open_files(options)[0])
    images = next(iter(parts))[0][:SHOWN]
    found, _ = features(images)
    order = evaluation.random_order(batches)
    which, _ = nearest(found, real.kept, NEIGHBOURS)
    rows = [[image[None], batches.examples(order[i])["image"]] for image, i in zip(images, which, strict=True)]
    pictures = np.concatenate([part for row in rows for part in row])
    write_png(options.neighbours, tile(pictures, NEIGHBOURS + 1))


def best_step(workdir: Path) -> int:
    """Return the kept checkpoint with the smallest eval/frechet_distance in training."""
    from gormley_vision.sweeps.runs import metrics_of
    from gormley_vision.training.checkpoints import steps_of

    kept = set(steps_of(workdir / "checkpoints"))
    lines = [line for line in metrics_of(workdir) if "eval/frechet_distance" in line and line["step"] in kept]
    if not lines:
        raise UserError(
            f"{workdir} has no kept checkpoint that was evaluated in training: train with --config.eval.extractor and "
            "--config.checkpoint.keep_every, or leave out --best"
        )
    return min(lines, key=lambda line: line["eval/frechet_distance"])["step"]


def main() -> None:
    """Measure, and print the card."""
    options = parse()
    from gormley_vision import sample_evaluation as evaluation
    from gormley_vision.extractors import open_extractor
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore
    from gormley_vision.training.sharding import Shardings, make_mesh

    start_jax()
    run = restore(options.workdir, options.step) if options.workdir else None
    extractor = open_extractor(options.extractor)
    like = open_files(options)[1] if run is None else run.config["data"]
    real_batches, data = open_real(options, options.split, like)
    extractor.refuse(real_batches.image_shape)
    mesh = make_mesh({"data": 0, "fsdp": 1, "tensor": 1}, batch_size())
    features = evaluation.Features(extractor, Shardings(mesh, ()), batch_size())
    real = features.summary(evaluation.in_random_order(real_batches), real_batches.length)
    if (width := real.kept.shape[1]) > min(real_batches.length, options.num if run else width):
        warning = "there are fewer images than features (%d), so the distance is mostly bias: raise --num"
        logging.getLogger("gormley_vision").warning(warning, width)
    tools = extractor, features, real_batches, data, real
    card = measure(options, run, tools)
    if options.best:
        step = best_step(options.workdir)
        best = measure(options, restore(options.workdir, step), tools)
        card["best_in_training"] = {"step": step, "figures": best["figures"]}
    print(json.dumps(card, indent=1))
    if options.out:
        write_json(options.out, card)


if __name__ == "__main__":
    with reported():
        main()
