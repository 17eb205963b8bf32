"""Figures of arrays that inspection.py computes. Needs matplotlib, which is not a dependency of the package."""

import math
from typing import Any

import numpy as np

from gormley_vision.samples import tile, to_uint8

SHOWN_FILTERS = 64


def new_figure(rows: int, columns: int, size: tuple[float, float], title: str, **options: Any) -> tuple[Any, Any]:
    """Return a figure that needs no screen, and its axes [rows, columns] without ticks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(size[0], 0.075 * len(title)), size[1]), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for each in axes.flat:
        each.set(xticks=[], yticks=[])
    return figure, axes


def attention(pixels: Any, maps: Any, rows: list[str], columns: list[str], title: str, across: bool = False) -> Any:
    """Draw images beside their maps [rows, columns, h, w], or `across`: above them. On the scale, 1 is uniform.

    A patch's colour is its weight; the image only lightens it: black pixels show the scale's own colours.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    count, shown = maps.shape[:2]
    shape = (shown + 1, count) if across else (count, shown + 1)
    figure, axes = new_figure(*shape, (1.15 * shape[1] + 1, 1.2 * shape[0] + 0.6), title)
    axes = axes.T if across else axes
    # The square root spreads dark colours: most weights are below 1, and a few far above.
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
    """Convert uint8 [H, W, C] to [0, 1] with three channels."""
    return np.broadcast_to(pixels / 255.0, (*pixels.shape[:2], 3))


def positions(similarity: Any, grid: tuple[int, int], title: str) -> Any:
    """Draw a grid of grids: tile (row, column) is that patch's similarity with all patches."""
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
    """Tile [n, h, w] into one array, with a line of NaN (not drawn) between tiles."""
    count, height, width = tiles.shape
    rows = -(-count // columns)
    tiled = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, one in enumerate(tiles):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        tiled[top : top + height, left : left + width] = one
    return tiled


def offsets(theory: Any, measured: Any, grid: tuple[int, int], layers: list[int], learned: bool, title: str) -> Any:
    """Draw the effect of rotation alone above the measured mean scores, one column for each layer."""
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
    """Draw principal components on the left, the first filters on the right, each scaled separately; mid-grey is 0."""
    raw = np.moveaxis(kernel, 3, 0)[:SHOWN_FILTERS]
    title = f"{name}: patch embedding, {kernel.shape[3]} filters of {kernel.shape[0]}x{kernel.shape[1]} pixels"
    figure, axes = new_figure(1, 2, (8.2, 4.5), title)
    held = f"{100 * shares.sum():.0f}% of the variance (first: {100 * shares[0]:.0f}%)"
    titles = f"{len(components)} principal components, {held}", f"the first {len(raw)} filters"
    for here, images, above in zip(axes[0], (components, raw), titles, strict=True):
        scaled = images / np.maximum(np.abs(images).max(axis=(1, 2, 3), keepdims=True), 1e-8)
        large = np.kron(to_uint8(scaled), np.ones((1, 8, 8, 1), np.uint8))
        framed = np.pad(large, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=90)
        here.imshow(as_rgb(tile(framed, math.ceil(len(images) ** 0.5))))
        here.set_title(above, fontsize=8)
        here.set_anchor("N")
        here.spines[:].set_visible(False)
    return figure
