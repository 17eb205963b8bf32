"""Draw what a Vision Transformer attends to, how it knows where a patch is, and what its patch embedding sees.

    python scripts/visualize.py --workdir=runs/vit_mnist
    python scripts/visualize.py --workdir=runs/vit_mnist --split=test --images=8 --layers=0,5 --heads=1 --out=pictures

attention.png      where each layer looks, from [CLS] or from all queries, averaged over --heads
heads.png          the same for the first image, head by head
rollout.png        all layers taken together (arXiv:2005.00928)
positions.png      learned positions: similarity of each patch's vector with all others (arXiv:2010.11929, figure 7)
rope_offsets.png   rotary positions: scores by offset, as the rotation alone has them and as measured on the images
filters.png        the patch embedding: principal components and filters (figure 7)

Images are the first of the run's order for that split. Needs matplotlib, which is no dependency of the package.
"""

import argparse
import importlib.util
import math
from pathlib import Path
from typing import Any

from gormley_vision.errors import UserError, reported
from gormley_vision.files import user_path

SHOWN_LAYERS, SHOWN_HEADS, SHOWN_FILTERS = 12, 16, 64


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=user_path, help="the folder of a classification run")
    parser.add_argument("--split", default="", help="whose images (default: the run's eval.split, else data.split)")
    parser.add_argument("--data_path", help="where the data set is now, in place of the run's data.path")
    parser.add_argument("--images", type=int, default=4, help="how many images")
    parser.add_argument("--layers", type=numbers, help=f"as in 0,5,-1 (default: {SHOWN_LAYERS}, evenly spaced)")
    parser.add_argument("--heads", type=numbers, help="as in 0,2 (default: all)")
    parser.add_argument("--step", type=int, help="checkpoint (default: the newest whole one)")
    parser.add_argument("--out", type=user_path, help="folder (default: WORKDIR/pictures)")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    """'0,5,-1' as a list."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Restore, compute, draw; a line for each picture."""
    options = parse()
    if options.images < 1:
        raise UserError(f"--images={options.images}: at least 1")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("this needs matplotlib: pip install matplotlib")
    import jax.numpy as jnp
    import numpy as np

    from gormley_vision import inspection
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore
    from gormley_vision.tasks.players import to_unit_range

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
    said = np.asarray(model.apply({"params": params}, images)).argmax(axis=-1)
    classes = run.class_names
    captions = [f"label {classes[a]}\nsays {classes[b]}" for a, b in zip(labels, said, strict=True)]
    reader = {"cls": "the class token", "gap": "all patches", "map": "all tokens"}[model.pooling]

    maps = inspection.attention_maps(model, params, images, range(model.depth))
    tokens = maps[0].shape[-1]

    def read(rows):
        return inspection.read_out(rows, model.pooling, model.unrotated, grid) * tokens

    per_layer = np.stack([read(maps[i][:, heads].mean(axis=1)) for i in layers], axis=1)
    of_heads = "mean over heads" if len(heads) == model.heads else f"heads {', '.join(map(str, heads))}"
    title = f"{name}: attention from {reader}, {of_heads}, {split} images"
    write(out / "attention.png", attention(pixels, per_layer, captions, [f"layer {i}" for i in layers], title))

    shown = heads[:SHOWN_HEADS]
    per_head = np.stack([read(maps[i][0])[shown] for i in layers])
    title = f"{name}: attention from {reader} by head, {split} image 0"
    rows, columns = [f"layer {i}" for i in layers], [f"head {k}" for k in shown]
    write(out / "heads.png", attention(np.repeat(pixels[:1], len(layers), axis=0), per_head, rows, columns, title))

    rolled = read(inspection.attention_rollout(np.stack(list(maps.values()))))
    title = f"{name}: attention rollout through layers 0-{model.depth - 1} to {reader}, {split} images"
    write(out / "rollout.png", attention(pixels, rolled[:, None], captions, ["rollout"], title, across=True))

    if model.position == "learned":
        similarity = inspection.position_similarity(inspection.learned_positions(params, grid))
        write(out / "positions.png", positions(similarity, grid, f"{name}: similarity of learned positions"))
    else:
        print(f"no positions.png: nothing is learned there, vit.position={model.position}")

    if model.rope == "none":
        print("no rope_offsets.png: vit.rope=none")
    else:
        angles = np.moveaxis(inspection.rotation_angles(model, params, grid)[:, model.unrotated :], 1, 2)
        theory = inspection.rope_similarity(angles[layers][:, heads if angles.shape[1] > 1 else [0]], grid)
        scores = inspection.attention_scores(model, params, images, layers)
        first = model.unrotated
        between = np.stack([scores[i][:, heads, first:, first:].mean(axis=0) for i in layers])
        measured = inspection.mean_by_offset(between, grid)
        learned = angles.shape[1] > 1
        title = f"{name}: scores by offset of the key, {model.rope}, {of_heads}, {len(images)} {split} images"
        write(
            out / "rope_offsets.png",
            offsets(theory.mean(axis=1), measured.mean(axis=1), grid, list(layers), learned, title),
        )

    kernel = np.asarray(params["patch_embedding"], np.float32)
    if kernel.shape[0] == 1:
        print("no filters.png: patches of one pixel")
    else:
        components, shares = inspection.principal_filters(kernel)
        write(out / "filters.png", filters(components, shares, kernel, name))


def indices(flag: str, chosen: Any, count: int) -> list[int]:
    """Layers or heads by number, negative ones from the end."""
    wrong = [int(i) for i in chosen if not -count <= i < count]
    if wrong:
        raise UserError(f"{flag}={','.join(map(str, wrong))}: this network has 0 to {count - 1}")
    return sorted({int(i) % count for i in chosen})


def first_images(run: Any, split: str, path: str | None, count: int) -> tuple[Any, Any, str]:
    """uint8 [B, H, W, C], labels [B], and the split's name: the first of the order in which the run would see it.

    In the order of the data set itself, those of mnist_5k would all be zeros. Decoded one by one, without a cache.
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


# ---------------------------------------------------------------------------------------------------------
# Figures from arrays.


def new_figure(rows: int, columns: int, size: tuple[float, float], title: str, **options: Any) -> tuple[Any, Any]:
    """A figure that draws itself without a screen, and its axes [rows, columns] without ticks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(size[0], 0.075 * len(title)), size[1]), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for each in axes.flat:
        each.set(xticks=[], yticks=[])
    return figure, axes


def attention(pixels: Any, maps: Any, rows: list[str], columns: list[str], title: str, across: bool = False) -> Any:
    """Images beside their maps [rows, columns, h, w], or `across` above them; one scale, on which 1 is "all alike".

    A patch's colour is its weight; the image only lightens it, so that black pixels show the scale's own colours.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    count, shown = maps.shape[:2]
    shape = (shown + 1, count) if across else (count, shown + 1)
    figure, axes = new_figure(*shape, (1.15 * shape[1] + 1, 1.2 * shape[0] + 0.6), title)
    axes = axes.T if across else axes
    # The root spreads what is dark: most weights are below 1, and a few far above.
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(np.quantile(maps, 0.995)), 1.0), clip=True)
    extent = (0, pixels.shape[2], pixels.shape[1], 0)
    patch = np.ones((pixels.shape[1] // maps.shape[2], pixels.shape[2] // maps.shape[3], 1))
    for row in range(count):
        image = as_rgb(pixels[row])
        for column in range(shown + 1):
            here, picture = axes[row, column], image
            if column:
                heat = colormaps["inferno"](norm(maps[row, column - 1]))[..., :3]
                picture = 1 - (1 - np.kron(heat, patch)) * (1 - 0.3 * image)
            here.imshow(picture, extent=extent, interpolation="nearest")
            if across or row == 0:
                label = rows[row] if across and column == 0 else "" if across else ["image", *columns][column]
                here.set_title(label, fontsize=7)
            if (row if across else column) == 0:
                here.set_ylabel(["image", *columns][column] if across else rows[row], fontsize=7)
    ticks = [0, *(t for t in 2.0 ** np.arange(-2, 12) if t <= norm.vmax)]
    bar = figure.colorbar(ScalarMappable(norm, "inferno"), ax=axes, fraction=0.05, extend="max", ticks=ticks)
    bar.ax.set_yticklabels([f"{t:g}" for t in ticks])
    bar.set_label("weight x number of tokens", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def as_rgb(pixels: Any) -> Any:
    """uint8 [H, W, C] to [0, 1] with three channels."""
    import numpy as np

    return np.broadcast_to(pixels / 255.0, (*pixels.shape[:2], 3))


def positions(similarity: Any, grid: tuple[int, int], title: str) -> Any:
    """A grid of grids: tile (row, column) is that patch's similarity with all patches."""
    height, width = grid
    tiled = mosaic(similarity.reshape(-1, height, width), width)
    figure, axes = new_figure(1, 1, (5.4, 4.8), title)
    here = axes[0, 0]
    drawn = here.imshow(tiled, "viridis", interpolation="nearest", vmin=min(float(similarity.min()), 0.0), vmax=1)
    here.set_xticks([i * (width + 1) + (width - 1) / 2 for i in range(width)], range(width), fontsize=7)
    here.set_yticks([i * (height + 1) + (height - 1) / 2 for i in range(height)], range(height), fontsize=7)
    here.set_xlabel("column of the patch", fontsize=8)
    here.set_ylabel("row of the patch", fontsize=8)
    here.tick_params(length=0)
    here.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=here, fraction=0.05)
    bar.set_label("cosine similarity", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def mosaic(tiles: Any, columns: int) -> Any:
    """[n, h, w] as one array, a line of NaN (drawn as nothing) between tiles."""
    import numpy as np

    count, height, width = tiles.shape
    rows = -(-count // columns)
    whole = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, one in enumerate(tiles):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        whole[top : top + height, left : left + width] = one
    return whole


def offsets(theory: Any, measured: Any, grid: tuple[int, int], layers: list[int], learned: bool, title: str) -> Any:
    """Above the rotation alone, below the measured mean scores; a column a layer."""
    height, width = grid
    figure, axes = new_figure(2, len(layers), (1.5 * len(layers) + 1.2, 4.0), title)
    extent = (0.5 - width, width - 0.5, height - 0.5, 0.5 - height)
    measured = measured - measured.mean(axis=(-2, -1), keepdims=True)  # a constant changes no softmax
    for row, values in enumerate((theory, measured)):
        limit = float(abs(values).max()) if row else 1.0
        drawn = None
        for column, layer in enumerate(layers):
            here = axes[row, column]
            if row == 0 and column and not learned:
                here.set_visible(False)  # the same in every layer
                continue
            drawn = here.imshow(values[column], "RdBu_r", extent=extent, vmin=-limit, vmax=limit)
            here.set(xticks=[1 - width, 0, width - 1], yticks=[1 - height, 0, height - 1])
            here.tick_params(labelsize=6)
            here.set_title(f"layer {layer}" if row or learned else "every layer", fontsize=8)
        axes[row, 0].set_ylabel(("rotation alone", "measured")[row] + "\npatches below the query", fontsize=7)
        bar = figure.colorbar(drawn, ax=axes[row], fraction=0.03)
        bar.set_label(("mean cosine", "score, less its mean")[row], fontsize=7)
        bar.ax.tick_params(labelsize=6)
    axes[1, 0].set_xlabel("patches to the right of the query", fontsize=7)
    return figure


def filters(components: Any, shares: Any, kernel: Any, name: str) -> Any:
    """Principal components on the left, the first filters on the right, each scaled by itself, mid-grey 0."""
    import numpy as np

    from gormley_vision.samples import tile, to_uint8

    raw = np.moveaxis(kernel, 3, 0)[:SHOWN_FILTERS]
    title = f"{name}: patch embedding, {kernel.shape[3]} filters of {kernel.shape[0]}x{kernel.shape[1]} pixels"
    figure, axes = new_figure(1, 2, (8.2, 4.5), title)
    held = f"{100 * shares.sum():.0f}% of the variance (first: {100 * shares[0]:.0f}%)"
    said = f"{len(components)} principal components, {held}", f"the first {len(raw)} filters"
    for here, images, above in zip(axes[0], (components, raw), said, strict=True):
        scaled = images / np.maximum(np.abs(images).max(axis=(1, 2, 3), keepdims=True), 1e-8)
        large = np.kron(to_uint8(scaled), np.ones((1, 8, 8, 1), np.uint8))
        framed = np.pad(large, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=90)
        here.imshow(as_rgb(tile(framed, math.ceil(len(images) ** 0.5))))
        here.set_title(above, fontsize=8)
        here.set_anchor("N")
        here.spines[:].set_visible(False)
    return figure


def write(path: Path, figure: Any) -> None:
    """PNG, atomically."""
    from io import BytesIO

    from gormley_vision.files import write_atomically

    drawn = BytesIO()
    figure.savefig(drawn, dpi=130)
    write_atomically(path, drawn.getvalue())
    print(path)


if __name__ == "__main__":
    with reported():
        main()
