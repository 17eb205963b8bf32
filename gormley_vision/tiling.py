"""Applies a function of tiles of one size to a picture of any size. numpy around a callable; knows no model."""

import itertools
from collections.abc import Callable

import numpy as np

from gormley_vision.errors import UserError


def tiled(
    function: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    *,
    tile: int,
    overlap: int,
    scale: int = 1,
    batch: int = 1,
) -> np.ndarray:
    """Return `function` of an image [H, W, C], computed in overlapping tiles: [scale H, scale W, C'].

    `function` maps [batch, tile, tile, C] to [batch, scale tile, scale tile, C'], and gets no other shape, so that it
    compiles once; places of the last batch that are left over repeat its last tile. `tile` and `overlap` are in pixels
    of `image`. Of each tile the `overlap` pixels beside a neighbour are discarded. The outermost tiles end where the
    image does, so for a convolutional function of stride 1 whose receptive field reaches at most `overlap` pixels from
    its centre, the result is that of the whole image, borders included. A picture smaller than a tile is filled up at
    its lower and right ends with its mirror image, and there only pixels farther than `overlap` from these are the
    same. Nets that halve their maps or normalise over an image agree between tiles no better than they are
    shift-invariant; a larger overlap hides it.

    Raises:
        UserError: the overlap leaves nothing of a tile.
        ValueError: `function` returned another size than it should.
    """
    if not 0 <= overlap < (tile + 1) // 2:
        raise UserError(f"a tile of {tile} pixels cannot overlap by {overlap}: choose 0 to {(tile - 1) // 2}")
    height, width = image.shape[:2]
    missing = [(0, max(0, tile - side)) for side in (height, width)]
    padded = np.pad(image, (*missing, (0, 0)), mode="symmetric")
    spans = list(itertools.product(*(_spans(side, tile, overlap) for side in padded.shape[:2])))
    result = np.empty(0)
    for first in range(0, len(spans), batch):
        chosen = spans[first : first + batch]
        tiles = [padded[top : top + tile, left : left + tile] for (top, _, _), (left, _, _) in chosen]
        outputs = np.asarray(function(np.stack(tiles + tiles[-1:] * (batch - len(tiles)))))
        if outputs.shape[:3] != (batch, scale * tile, scale * tile):
            raise ValueError(f"{batch} tiles of {tile} pixels at scale {scale} became {outputs.shape}")
        if not result.size:
            result = np.empty((scale * padded.shape[0], scale * padded.shape[1], outputs.shape[3]), outputs.dtype)
        for output, (rows, columns) in zip(outputs, chosen, strict=False):
            (own_rows, all_rows), (own_columns, all_columns) = (_slices(span, scale) for span in (rows, columns))
            result[all_rows, all_columns] = output[own_rows, own_columns]
    return result[: scale * height, : scale * width]


def _spans(side: int, tile: int, overlap: int) -> list[tuple[int, int, int]]:
    """Return where each tile along an axis starts, and from where to where the result is its own."""
    starts = [*range(0, side - tile, tile - 2 * overlap), side - tile]
    cuts = [0, *(start + overlap for start in starts[1:]), side]
    return list(zip(starts, cuts[:-1], cuts[1:], strict=True))


def _slices(span: tuple[int, int, int], scale: int) -> tuple[slice, slice]:
    """Return the part of a tile's output that counts, and its place in the result."""
    start, low, high = (scale * pixel for pixel in span)
    return slice(low - start, high - start), slice(low, high)
