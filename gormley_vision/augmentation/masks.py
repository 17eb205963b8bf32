"""Random masks of what is known of an image: bool [B, H, W, 1], True where known. Pure functions of (key, shape).

`shape` is that of the images, [B, H, W, C]. Each image has its own mask. Boxes, strokes and sides as Palette has them
(Saharia et al. 2021, arXiv:2111.05826) in the code of Janspiry/Palette-Image-to-Image-Diffusion-Models, in
shares of the side instead of pixels of 256. Its hybrid hides what either hides: `boxes(...) & brush_strokes(...)`.
"""

import math

import jax
import jax.numpy as jnp

Span = tuple[jax.Array, jax.Array]  # int [B]: where it starts, and where it has stopped


def boxes(
    key: jax.Array, shape: tuple[int, ...], *, smallest: float = 0.42, largest: float = 0.5, margin: float = 0.08
) -> jax.Array:
    """Hide a box, height and width uniform from `smallest` to `largest` of the image's, in whole pixels.

    Its place is uniform among those that leave `margin` of the side on every side. Deviation: that code places the
    largest box and then cuts off its top and left.

    Raises:
        ValueError: the largest box does not fit between the margins, or the smallest has no pixel.
    """
    spans = []
    for axis_key, side in zip(jax.random.split(key), shape[1:3], strict=True):
        low, high, free = (round(share * side) for share in (smallest, largest, margin))
        if not 1 <= low <= high <= side - 2 * free:
            raise ValueError(f"a box of {low} to {high} of {side} pixels does not fit between margins of {free}")
        length_key, place_key = jax.random.split(axis_key)
        length = jax.random.randint(length_key, shape[:1], low, high + 1)
        start = jax.random.randint(place_key, shape[:1], free, side - free - length + 1)
        spans.append((start, start + length))
    return ~_rectangles(spans[0], spans[1], shape)


def one_side(key: jax.Array, shape: tuple[int, ...], *, hidden: float = 0.5) -> jax.Array:
    """Hide one side of each image, top, bottom, left or right equally likely, `hidden` of its area: uncropping."""
    _, height, width = shape[:3]
    rows, columns = round(hidden * height), round(hidden * width)
    side = jax.random.randint(key, shape[:1], 0, 4)
    vertical = jnp.where(side == 0, rows, 0), jnp.where(side == 1, height - rows, height)
    horizontal = jnp.where(side == 2, columns, 0), jnp.where(side == 3, width - columns, width)
    return _rectangles(vertical, horizontal, shape)


def all_sides(key: jax.Array, shape: tuple[int, ...], *, hidden: float = 0.5) -> jax.Array:
    """Hide all but a box with the image's proportions, so `hidden` of the area, up to rounding of its sides.

    Its place is uniform; at least a pixel is hidden on every side. Deviation: that code also draws the box's
    proportions, and hides it in place of what surrounds it.
    """
    spans = []
    for axis_key, side in zip(jax.random.split(key), shape[1:3], strict=True):
        length = min(round(math.sqrt(1 - hidden) * side), side - 2)
        if length < 1:
            raise ValueError(f"of {side} pixels none is left between two hidden ones, with hidden={hidden}")
        start = jax.random.randint(axis_key, shape[:1], 1, side - length)
        spans.append((start, start + length))
    return _rectangles(spans[0], spans[1], shape)


def brush_strokes(
    key: jax.Array,
    shape: tuple[int, ...],
    *,
    strokes: int = 3,
    pieces: tuple[int, int] = (4, 11),
    thickness: tuple[float, float] = (0.05, 0.15),
) -> jax.Array:
    """Hide 1 to `strokes` zigzag lines of `pieces` (least, most) straight pieces, numbers uniform.

    `thickness` (least, most) is a share of the shorter side, uniform for each line. The lines are those of Yu et al.
    2018 (arXiv:1806.03589, appendix): a piece's length is N(r, (r/2)^2) within 0 ... 2r, r being an eighth of the
    diagonal, its angle about 2 pi / 5, up and down by turns; points beyond the border are moved onto it. Then the
    picture is mirrored along either axis with probability 1/2 (which Palette's code draws, and drops).
    """
    batch, height, width = shape[:3]
    line_key, count_key, piece_key, radius_key = jax.random.split(key, 4)
    points = _zigzags(line_key, (batch, strokes, pieces[1]), (height, width))
    drawn = jnp.arange(strokes)[None, :] < jax.random.randint(count_key, (batch, 1), 1, strokes + 1)
    count = jax.random.randint(piece_key, (batch, strokes), pieces[0], pieces[1] + 1)
    used = drawn[:, :, None] & (jnp.arange(pieces[1])[None, None, :] < count[:, :, None])
    least, most = (share * min(height, width) / 2 for share in thickness)
    radii = jax.random.uniform(radius_key, (batch, strokes, 1), minval=least, maxval=most)
    starts, ends = (x.reshape(batch, -1, 2) for x in (points[:, :, :-1], points[:, :, 1:]))
    return ~near_segments(starts, ends, jnp.where(used, radii, -1).reshape(batch, -1), (height, width))


def _zigzags(key: jax.Array, shape: tuple[int, int, int], size: tuple[int, int]) -> jax.Array:
    """Return points (y, x) of lines, [B, lines, pieces + 1, 2], in pixels of images of `size`; `shape` is all but 2."""
    start_key, spread_key, angle_key, length_key, mirror_key = jax.random.split(key, 5)
    radius = math.hypot(*size) / 8
    # Each line has its own least and most angle.
    low, high = jax.random.uniform(spread_key, (2, *shape[:2], 1), maxval=2 * math.pi / 15)
    angles = jax.random.uniform(angle_key, shape, minval=2 * math.pi / 5 - low, maxval=2 * math.pi / 5 + high)
    angles *= jnp.where(jnp.arange(shape[2]) % 2 == 0, -1.0, 1.0)[None, None, :]
    lengths = jnp.clip(radius + radius / 2 * jax.random.normal(length_key, shape), 0, 2 * radius)
    steps = lengths[..., None] * jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    border = jnp.array(size, jnp.float32)[None, None, :]
    points = [jax.random.uniform(start_key, (*shape[:2], 2)) * border]
    for piece in range(shape[2]):
        points.append(jnp.clip(points[-1] + steps[:, :, piece], 0, border))
    mirrored = jax.random.bernoulli(mirror_key, shape=(shape[0], 1, 2))
    return jnp.stack([jnp.where(mirrored, border - point, point) for point in points], axis=2)


def near_segments(starts: jax.Array, ends: jax.Array, radii: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Return bool [B, H, W, 1], True for pixels whose centre is within its radius of any of N segments of the image.

    `starts` and `ends` [B, N, 2] are (y, x) in pixels, pixel i covering [i, i + 1); `radii` [B, N]. A negative radius
    draws nothing.
    """
    y = (jnp.arange(size[0], dtype=jnp.float32) + 0.5)[None, None, :, None] - starts[:, :, None, None, 0]
    x = (jnp.arange(size[1], dtype=jnp.float32) + 0.5)[None, None, None, :] - starts[:, :, None, None, 1]
    along = (ends - starts)[:, :, None, None, :]
    squared = jnp.maximum(jnp.sum(jnp.square(along), axis=-1), 1e-12)  # a segment may be a point
    nearest = jnp.clip((y * along[..., 0] + x * along[..., 1]) / squared, 0, 1)
    distance = jnp.square(y - nearest * along[..., 0]) + jnp.square(x - nearest * along[..., 1])
    limit = jnp.where(radii < 0, -1, jnp.square(radii))[:, :, None, None]
    return jnp.any(distance <= limit, axis=1)[..., None]


def _rectangles(vertical: Span, horizontal: Span, shape: tuple[int, ...]) -> jax.Array:
    """Return bool [B, H, W, 1], True in the rows and columns from the first of two numbers, int [B], to the second."""
    inside = []
    for (start, stop), side in zip((vertical, horizontal), shape[1:3], strict=True):
        pixel = jnp.arange(side)[None, :]
        inside.append((start[:, None] <= pixel) & (pixel < stop[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
