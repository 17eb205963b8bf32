"""Draw a Vision Transformer's attention, how it encodes positions, and the filters of its patch embedding.

    python scripts/visualize.py --workdir=runs/vit_mnist
    python scripts/visualize.py --workdir=runs/vit_mnist --split=test --images=8 --layers=0,5 --heads=1 --out=pictures

attention.png      where each layer looks, from [CLS] or from all queries, averaged over --heads
heads.png          the same for the first image, head by head
rollout.png        all layers taken together (arXiv:2005.00928)
positions.png      learned positions: similarity of each patch's vector with all others (arXiv:2010.11929, figure 7)
rope_offsets.png   rotary positions: scores by offset, by rotation alone and as measured on the images
filters.png        the patch embedding: principal components and filters (figure 7)

Images are the first of the run's order for that split. Needs matplotlib, which is not a dependency of the package.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError, reported
from gormley_vision.files import path_flag

SHOWN_LAYERS, SHOWN_HEADS = 12, 16


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=path_flag, help="the folder of a classification run")
    parser.add_argument(
        "--split", default="", help="split of the images (default: the run's eval.split, else data.split)"
    )
    parser.add_argument("--data_path", help="where the data set is now, instead of the run's data.path")
    parser.add_argument("--images", type=int, default=4, help="number of images")
    parser.add_argument("--layers", type=numbers, help=f"layers, as in 0,5,-1 (default: {SHOWN_LAYERS}, evenly spaced)")
    parser.add_argument("--heads", type=numbers, help="heads, as in 0,2 (default: all)")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the newest complete one)")
    parser.add_argument("--out", type=path_flag, help="folder for the pictures (default: WORKDIR/pictures)")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    """Parse '0,5,-1' to a list."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Restore the run, compute, draw; prints one line for each picture."""
    options = parse()
    if options.images < 1:
        raise UserError(f"--images={options.images}: at least 1")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("this needs matplotlib: pip install matplotlib")
    import jax.numpy as jnp
    import numpy as np

    from gormley_vision import figures, inspection
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore
    from gormley_vision.tasks.networks import to_unit_range

    start_jax()
    run = restore(options.workdir, options.step)
    model, params = inspection.vision_transformer_of(run)
    out = options.out or options.workdir / "pictures"
    name = f"{options.workdir.resolve().name}, step {run.step}"
    chosen = options.layers or np.unique(np.linspace(0, model.depth - 1, min(SHOWN_LAYERS, model.depth)).astype(int))
    layers = indices("--layers", chosen, model.depth)
    heads = indices("--heads", options.heads or range(model.heads), model.heads)
    pixels, labels, split = first_images(run, options.split, options.data_path, options.images)
    images = to_unit_range(jnp.asarray(pixels))
    grid = pixels.shape[1] // model.patch_size, pixels.shape[2] // model.patch_size
    predicted = np.asarray(model.apply({"params": params}, images)).argmax(axis=-1)
    classes = run.class_names
    captions = [f"label {classes[a]}\npredicted {classes[b]}" for a, b in zip(labels, predicted, strict=True)]
    reader = {"cls": "the class token", "gap": "all patches", "map": "all tokens"}[model.pooling]

    maps = inspection.attention_maps(model, params, images, range(model.depth))
    tokens = maps[0].shape[-1]

    def read(rows):
        return inspection.read_out(rows, model.pooling, model.num_prefix_tokens, grid) * tokens

    per_layer = np.stack([read(maps[i][:, heads].mean(axis=1)) for i in layers], axis=1)
    heads_text = "mean over heads" if len(heads) == model.heads else f"heads {', '.join(map(str, heads))}"
    title = f"{name}: attention from {reader}, {heads_text}, {split} images"
    write(out / "attention.png", figures.attention(pixels, per_layer, captions, [f"layer {i}" for i in layers], title))

    shown = heads[:SHOWN_HEADS]
    per_head = np.stack([read(maps[i][0])[shown] for i in layers])
    title = f"{name}: attention from {reader} by head, {split} image 0"
    rows, columns = [f"layer {i}" for i in layers], [f"head {k}" for k in shown]
    write(
        out / "heads.png", figures.attention(np.repeat(pixels[:1], len(layers), axis=0), per_head, rows, columns, title)
    )

    rolled = read(inspection.attention_rollout(np.stack(list(maps.values()))))
    title = f"{name}: attention rollout through layers 0-{model.depth - 1} to {reader}, {split} images"
    write(out / "rollout.png", figures.attention(pixels, rolled[:, None], captions, ["rollout"], title, across=True))

    if model.position == "learned":
        similarity = inspection.position_similarity(inspection.learned_positions(params, grid))
        write(out / "positions.png", figures.positions(similarity, grid, f"{name}: similarity of learned positions"))
    else:
        print(f"no positions.png: positions are not learned, vit.position={model.position}")

    if model.rope == "none":
        print("no rope_offsets.png: vit.rope=none")
    else:
        angles = np.moveaxis(inspection.rotation_angles(model, params, grid)[:, model.num_prefix_tokens :], 1, 2)
        theory = inspection.rope_similarity(angles[layers][:, heads if angles.shape[1] > 1 else [0]], grid)
        scores = inspection.attention_scores(model, params, images, layers)
        patches = slice(model.num_prefix_tokens, None)
        between = np.stack([scores[i][:, heads, patches, patches].mean(axis=0) for i in layers])
        measured = inspection.mean_by_offset(between, grid)
        learned = angles.shape[1] > 1
        title = f"{name}: scores by offset of the key, {model.rope}, {heads_text}, {len(images)} {split} images"
        write(
            out / "rope_offsets.png",
            figures.offsets(theory.mean(axis=1), measured.mean(axis=1), grid, list(layers), learned, title),
        )

    kernel = np.asarray(params["patch_embedding"], np.float32)
    if kernel.shape[0] == 1:
        print("no filters.png: patches of one pixel")
    else:
        components, shares = inspection.principal_filters(kernel)
        write(out / "filters.png", figures.filters(components, shares, kernel, name))


def indices(flag: str, chosen: Any, count: int) -> list[int]:
    """Return sorted numbers of layers or heads; negative ones count from the end.

    Raises:
        UserError: a number is out of range.
    """
    wrong = [int(i) for i in chosen if not -count <= i < count]
    if wrong:
        raise UserError(f"{flag}={','.join(map(str, wrong))}: this network has 0 to {count - 1}")
    return sorted({int(i) % count for i in chosen})


def first_images(run: Any, split: str, path: str | None, count: int) -> tuple[Any, Any, str]:
    """Return uint8 [B, H, W, C], labels [B], and the split's name: the first images in the run's order.

    In the order of the data set itself, those of mnist_5k would all be zeros. Images are decoded one by one, without a
    cache.
    """
    import numpy as np

    from gormley_vision import experiment
    from gormley_vision.command_line import override

    split = split or run.config["eval"]["split"] or run.config["data"]["split"]
    words = ["--config.data.batch_size=1", "--config.data.placement=stream"]
    words += [f"--config.data.path={path}"] if path is not None else []
    config = override(run.config, words, "data")
    batches = experiment.make_batches(config, split=split, class_names=run.class_names)
    read = [batches.read(step) for step in range(min(count, batches.length))]
    return np.concatenate([r["image"][0] for r in read]), np.concatenate([r["label"][0] for r in read]), split


def write(path: Path, figure: Any) -> None:
    """Write a figure as PNG, atomically."""
    from io import BytesIO

    from gormley_vision.files import write_atomically

    drawn = BytesIO()
    figure.savefig(drawn, dpi=130)
    write_atomically(path, drawn.getvalue())
    print(path)


if __name__ == "__main__":
    with reported():
        main()
