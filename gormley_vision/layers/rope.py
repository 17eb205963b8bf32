"""Rotary position embeddings (RoPE): angles from explicit positions, then a rotation. Pure functions, nothing cached.

Su et al. 2021, "RoFormer" (arXiv:2104.09864), section 3.2.2: each pair of channels of a query or key at position m is
rotated by m * theta_i, so that the score of a query at m and a key at n depends only on m - n. Three steps, each
chosen by the caller:

    positions     [..., N] along a line, or `grid_positions` [H*W, 2]; any real numbers, any batch shape
    angles        `rope_angles` (1-D), `axial_angles`, `mixed_angles` (2-D): [..., N, Dh/2] radians
    rotation      `apply_rope(x, angles, pairing)`: x [..., N, Dh], q and k alike

The lecture's three forms are `rotation_matrix` (the definition), `rotate_interleaved` (the efficient form) and
`rotate_half_split` (its matrix version). docs/rope.md lists errors on its slides, and what they break.

d in the exponent of theta_i = base^(-2(i-1)/d) is the number of channels that the frequencies rotate: d_k in 1-D, as in
equation 15 of the paper (the lecture's corrected slide says d = d_k / 2, with which the matrix R would lack half of its
blocks), and d_k / 2 for each axis of an image.

Positions, frequencies and angles narrower than float32 are refused: bfloat16 has no 257, and nothing later can fix
that. An angle in float32 at position m is off by up to m * 2^-24 rad plus its rounding, 6e-4 rad at 10,000; float64
inputs are computed in float64.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Pairing = Literal["interleaved", "half"]  # channels (2i, 2i+1), or (i, i + Dh/2), are a pair
Order = Literal["xy", "yx"]  # the axis whose pairs come first among the channels
Coordinates = Literal["index", "separate", "max", "min"]

# ---------------------------------------------------------------------------------------------------------
# Frequencies.


def rope_frequencies(dim: int, base: float = 10000.0, dtype=jnp.float32) -> jax.Array:
    """Return theta_i = base^(-2(i-1)/dim), i = 1 ... dim/2, radians per unit of position (RoFormer, equation 15).

    `dim` counts the channels that they rotate: the head width in 1-D, half of it for each axis of `axial_angles`.
    Computed on the host in float64 and rounded once, so that a compiled program sees the same bits.
    """
    return jnp.asarray(_geometric(dim, base), dtype)


def period_frequencies(dim: int, base: float = 100.0, dtype=jnp.float32) -> jax.Array:
    """Return [dim/2] radians per unit, 2 pi / base^(2(i-1)/dim): periods of 1 to nearly `base` units, as in DINOv3.

    DINOv3 (arXiv:2508.10104) defines periods, in units of coordinates that span [-1, 1]. For a checkpoint that stores
    its periods (rounded to bfloat16, in the original release) use 2 * pi / periods in float32.
    """
    return jnp.asarray(2 * np.pi * _geometric(dim, base), dtype)


def mixed_frequencies(
    key: jax.Array, heads: int, dim: int, base: float = 10.0, rotate: bool = True, dtype=jnp.float32
) -> jax.Array:
    """Return initial values of one layer's learned frequencies, [2 (x, y), K, Dh/2] radians per unit.

    RoPE-Mixed (Heo et al. 2024, arXiv:2403.13298, section 3.2), initialised as in the authors' code: Dh/4 magnitudes
    base^(-4j/Dh), each pointing along a direction phi (first half of the pairs) and along phi + pi/2 (second half);
    `rotate` draws phi in [0, 2 pi) for each head, else phi = 0, which is `axial_angles` in order xy. The authors
    do not decay these weights. Their checkpoints have [2, L, K*Dh/2], timm's [2, L, K, Dh/2].
    """
    if dim % 4:
        raise ValueError(f"mixed frequencies come in two directions of pairs: dim must be a multiple of 4, not {dim}")
    magnitudes = jnp.asarray(_geometric(dim // 2, base), dtype)[None]
    phi = jax.random.uniform(key, (heads, 1), dtype, 0, 2 * np.pi) if rotate else jnp.zeros((heads, 1), dtype)
    directions = jnp.stack([jnp.cos(phi), -jnp.sin(phi), jnp.sin(phi), jnp.cos(phi)])  # x of both, y of both
    return (directions * magnitudes[None]).reshape(2, 2, heads, dim // 4).transpose(0, 2, 1, 3).reshape(2, heads, -1)


# ---------------------------------------------------------------------------------------------------------
# Positions and angles.


def grid_positions(height: int, width: int, coordinates: Coordinates = "index", dtype=jnp.float32) -> jax.Array:
    """Return the positions of an image's patches: [H*W, 2], columns (x, y), row-major (token t is at x = t % W).

    "index": 0, 1, 2, ... along each axis (RoFormer's integers on a grid; naver, EVA-02, timm).
    "separate", "max", "min": DINOv3's, 2 (i + 1/2) / n - 1, with n the axis' own length, or the longer, or the
    shorter of the two. "separate" spans [-1, 1] on both axes; "max" and "min" keep squares square, and, as in the
    original, start at -1 on both axes instead of centring the axis whose length is not n.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a grid of {height}x{width} patches")
    sides = np.array([width, height])
    index = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    match coordinates:
        case "index":
            return jnp.asarray(index, dtype)
        case "separate" | "max" | "min":
            length = {"separate": sides, "max": sides.max(), "min": sides.min()}[coordinates]
            return jnp.asarray(2 * (index + 0.5) / length - 1, dtype)
    raise ValueError(f"coordinates {coordinates!r}: one of index, separate, max, min")


def rope_angles(positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Return angles in 1-D: `positions` [..., N] and `frequencies` [Dh/2] -> [..., N, Dh/2] radians, float32 or wider.

    Positions may be batched, different in each row, fractional or negative.
    """
    positions, frequencies = _precise("positions", positions), _precise("frequencies", frequencies)
    if frequencies.ndim != 1:
        raise ValueError(f"frequencies have shape {frequencies.shape}, not [Dh/2]")
    return positions[..., None] * jnp.expand_dims(frequencies, tuple(range(positions.ndim)))


def axial_angles(positions: jax.Array, frequencies: jax.Array, order: Order = "xy") -> jax.Array:
    """Return angles in 2-D, half of the pairs for x and half for y: [..., N, 2] -> [..., N, Dh/2] radians.

    `frequencies` are [Dh/4] for both axes, from `rope_frequencies(Dh // 2)`, or [2, Dh/4] for x and y. `order` gives
    the axis whose pairs come first; they are two blocks, as in the code of RoPE-ViT, timm and DINOv3.
    """
    positions, frequencies = _on_grid(positions), _precise("frequencies", frequencies)
    if frequencies.ndim == 1:
        frequencies = jnp.stack([frequencies, frequencies])
    if frequencies.ndim != 2 or frequencies.shape[0] != 2:
        raise ValueError(f"frequencies have shape {frequencies.shape}, neither [Dh/4] nor [2, Dh/4]")
    if order not in ("xy", "yx"):
        raise ValueError(f"order {order!r}: one of xy, yx")
    angles = {axis: rope_angles(positions[..., i], frequencies[i]) for i, axis in enumerate("xy")}
    return jnp.concatenate([angles[order[0]], angles[order[1]]], axis=-1)


def mixed_angles(positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Return angles x * fx + y * fy, each pair with its own direction: [..., N, 2] -> [..., N, K, Dh/2] radians.

    `frequencies` [2 (x, y), K, Dh/2], learned by each layer and head (arXiv:2403.13298, section 3.2). The head axis
    follows the token axis, as in queries [B, N, K, Dh]: `apply_rope(..., token_axis=-3)`.
    """
    positions, frequencies = _on_grid(positions), _precise("frequencies", frequencies)
    if frequencies.ndim != 3 or frequencies.shape[0] != 2:
        raise ValueError(f"frequencies have shape {frequencies.shape}, not [2, K, Dh/2]")
    fx, fy = (jnp.expand_dims(f, tuple(range(positions.ndim - 1))) for f in frequencies)
    x, y = positions[..., 0, None, None], positions[..., 1, None, None]
    return x * fx + y * fy  # not a matrix product: accelerators round its inputs to bfloat16 or TF32


def leave_unrotated(angles: jax.Array, first: int = 0, last: int = 0, token_axis: int = -2) -> jax.Array:
    """Pad `angles` with zeros, which do not rotate, for `first` tokens before and `last` tokens after.

    For class and register tokens. `apply_rope` refuses angles for another number of tokens than x has, so
    forgetting this is an error and not a shift by one. The score of a patch and an unrotated token depends on the
    patch's absolute position: only there does it matter where positions start.
    """
    if not -angles.ndim <= token_axis <= -2:
        raise ValueError(f"axis {token_axis} of angles {angles.shape} is not one of tokens")
    widths = [(0, 0)] * angles.ndim
    widths[token_axis] = (first, last)
    return jnp.pad(angles, widths)


# ---------------------------------------------------------------------------------------------------------
# The rotation: the lecture's three forms.


def rotation_matrix(angles: jax.Array) -> jax.Array:
    """Return the definition: R, block diagonal with [[cos, -sin], [sin, cos]] per angle; [..., d/2] -> [..., d, d]."""
    angles = _precise("angles", angles)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    blocks = jnp.stack([jnp.stack([cos, -sin], axis=-1), jnp.stack([sin, cos], axis=-1)], axis=-2)  # [..., d/2, 2, 2]
    count = angles.shape[-1]
    diagonal = jnp.eye(count, dtype=angles.dtype).reshape((1,) * (angles.ndim - 1) + (count, 1, count, 1))
    matrix = jnp.expand_dims(blocks, -2) * diagonal  # [..., d/2, 2, d/2, 2]
    return matrix.reshape(*angles.shape[:-1], 2 * count, 2 * count)


def rotate_interleaved(y: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotate in the efficient form: R y = y * cos + (-y2, y1, -y4, y3, ...) * sin, without the zeros of R.

    `y` [..., N, Dh] of any float type, which the result keeps; `angles` [..., N, Dh/2] broadcast to it.
    """
    y = jnp.asarray(y)
    y_precise, cos, sin = _aligned(y, angles)
    pairs = y_precise.reshape(*y.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.reshape(y.shape).astype(y.dtype)


def rotate_half_split(y: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotate by the lecture's matrix version: Y * cos(C) + [-right half | left half] * sin(C), C = [angles | angles].

    Channel i is paired with i + Dh/2, where R pairs neighbours: not R y, but R after `pairing_permutation`. Scores are
    the same if queries and keys are rotated alike and the weights were trained for it. Shapes as in
    `rotate_interleaved`.
    """
    y = jnp.asarray(y)
    y_precise, cos, sin = _aligned(y, angles)
    left, right = jnp.split(y_precise, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(y.dtype)


def apply_rope(x: jax.Array, angles: jax.Array, pairing: Pairing = "interleaved", token_axis: int = -2) -> jax.Array:
    """Rotate queries or keys `x` [..., N, Dh] by `angles` [..., N, Dh/2], in float32 or wider; returns x's type.

    For queries [B, N, K, Dh] (as in `jax.nn.dot_product_attention`) pass token_axis=-3 and angles with a head axis:
    those of `mixed_angles` have one, for others pass `angles[..., None, :]`. Axes before the tokens may be missing
    from the angles, or 1.

    Raises:
        ValueError: the shapes do not fit, above all N differs.
    """
    if pairing not in ("interleaved", "half"):
        raise ValueError(f"pairing {pairing!r}: one of interleaved, half")
    within = -min(angles.ndim, x.ndim) <= token_axis <= -2
    if not within or angles.shape[token_axis] != x.shape[token_axis]:
        raise ValueError(
            f"angles {angles.shape} and x {x.shape} must have the same number of tokens on axis {token_axis}; "
            "unrotated tokens need `leave_unrotated`, a head axis after the tokens needs `angles[..., None, :]`"
        )
    return (rotate_interleaved if pairing == "interleaved" else rotate_half_split)(x, angles)


def pairing_permutation(dim: int) -> np.ndarray:
    """Return [dim] channel numbers, evens then odds: half(x[..., perm]) = interleaved(x)[..., perm], so scores agree.

    A head's query and key weights [D, Dh] trained with interleaved pairs work with the half split as `kernel[:, perm]`
    (biases as `bias[perm]`), and the other way round with `np.argsort(perm)`.
    """
    if dim % 2:
        raise ValueError(f"channels come in pairs: {dim} is odd")
    return np.concatenate([np.arange(0, dim, 2), np.arange(1, dim, 2)])


# ---------------------------------------------------------------------------------------------------------
# Longer or larger than trained. `scale` is the new length over the trained one; on grids a pair (x, y) may be given.


def interpolate_positions(positions: jax.Array, scale: float | Sequence[float]) -> jax.Array:
    """Divide positions by `scale`: position interpolation (Chen et al. 2023, arXiv:2306.15595, section 2.3).

    Positions are [..., N] with one number, or [..., N, 2] with (x, y). On an index grid this is the reference shape of
    EVA-02 and timm; the normalised coordinates of `grid_positions` already interpolate.
    """
    positions, scales = _precise("positions", positions), _scales(scale)
    if isinstance(scale, int | float):
        return positions / scale
    return _on_grid(positions) / jnp.asarray(scales, positions.dtype).reshape((1,) * (positions.ndim - 1) + (2,))


def ntk_base(base: float, dim: int, scale: float) -> float:
    """Return the NTK-aware base, base * scale^(dim / (dim-2)): the fastest pair as trained, the slowest interpolated.

    bloc97 2023, in Peng et al. (YaRN, arXiv:2309.00071), section 3.1. theta_1 = 1 whatever the base; the last,
    base^(-(dim-2)/dim), is divided by exactly `scale`. For an axis of a grid, `dim` is what `rope_frequencies` is
    given, half of the head width, hence scale^(Dh / (Dh-4)); a rectangle may need a base for each axis, which
    `axial_angles` takes as [2, Dh/4].
    """
    if dim <= 2:
        raise ValueError(f"dim {dim} has one frequency, which cannot be both kept and divided")
    return base * float(_scales(scale)[0]) ** (dim / (dim - 2))


def ntk_mixed_frequencies(frequencies: jax.Array, scale: float | Sequence[float]) -> jax.Array:
    """Apply the same rule to learned frequencies [2, K, Dh/2]: pair j of each direction times scale^(-j / (Dh/4 - 1)).

    For initial frequencies this equals another base. It assumes that learned ones have kept their order, which is a
    guess. With (x, y) scales, x and y components are scaled separately, which rotates the directions.
    """
    frequencies = _precise("frequencies", frequencies)
    count = frequencies.shape[-1] // 2
    if frequencies.ndim != 3 or frequencies.shape[0] != 2 or frequencies.shape[-1] % 2 or count < 2:
        raise ValueError(f"frequencies have shape {frequencies.shape}, not [2, K, Dh/2] with Dh/4 of 2 or more")
    factors = np.tile(_scales(scale)[:, None] ** (-np.arange(count) / (count - 1)), (1, 2))
    return frequencies * jnp.asarray(factors, frequencies.dtype)[:, None, :]


# ---------------------------------------------------------------------------------------------------------
# What published models do.


class Preset(NamedTuple):
    """One row of PRESETS; `order` and `coordinates` are not used for a line."""

    kind: Literal["line", "axial", "mixed"]
    base: float
    pairing: Pairing
    order: Order = "xy"
    coordinates: Coordinates = "index"
    periods: bool = False  # `period_frequencies` in place of `rope_frequencies`


PRESETS = {
    "roformer": Preset("line", 10000.0, "interleaved"),
    "llama": Preset("line", 10000.0, "half"),  # as in Hugging Face's weights, and Gemma's; Llama 3 has base 500,000
    "naver_axial": Preset("axial", 100.0, "interleaved", "xy"),  # timm's vit_*_rope_224 too
    "naver_mixed": Preset("mixed", 10.0, "interleaved"),
    "timm": Preset("axial", 10000.0, "interleaved", "yx"),  # EVA-02: RotaryEmbeddingCat, 'ij', not in pixels
    "dinov3": Preset("axial", 100.0, "half", "yx", "separate", periods=True),
}


def preset_angles(name: str, dim: int, positions: jax.Array, ntk_scale: float | Sequence[float] = 1.0) -> jax.Array:
    """Return angles [..., N, Dh/2] of a fixed preset for heads of width `dim`; use with `PRESETS[name].pairing`.

    `positions` are [..., N] on a line; on a grid `grid_positions(height, width, PRESETS[name].coordinates)`.
    `ntk_scale` applies `ntk_base`, separately to each axis (x, y) of a grid; not with periods (normalised coordinates).
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}: one of {', '.join(PRESETS)}")
    preset, scales = PRESETS[name], _scales(ntk_scale)
    if preset.periods and (scales != 1).any():
        raise ValueError(f"{name} has normalised coordinates, which already interpolate: no NTK rule")
    match preset.kind:
        case "line":
            return rope_angles(positions, rope_frequencies(dim, _stretched(preset.base, dim, scales[0])))
        case "axial":
            if dim % 4:
                raise ValueError(f"two axes of pairs: dim must be a multiple of 4, not {dim}")
            frequencies = period_frequencies if preset.periods else rope_frequencies
            per_axis = [frequencies(dim // 2, _stretched(preset.base, dim // 2, scale)) for scale in scales]
            return axial_angles(positions, jnp.stack(per_axis), preset.order)
    raise ValueError(f"{name} learns its frequencies: start from `mixed_frequencies`, then `mixed_angles`")


def _stretched(base: float, dim: int, scale: float) -> float:
    return base if scale == 1 else ntk_base(base, dim, float(scale))


# ---------------------------------------------------------------------------------------------------------
# Checks.


def _geometric(dim: int, base: float) -> np.ndarray:
    if dim < 2 or dim % 2:
        raise ValueError(f"channels come in pairs: dim must be even and at least 2, not {dim}")
    if not base > 0:
        raise ValueError(f"base {base} is not positive")
    return np.float64(base) ** (-np.arange(0, dim, 2) / dim)


def _precise(name: str, array: jax.Array) -> jax.Array:
    """Convert to float32, or keep float64. Raises ValueError for types that have already rounded."""
    array = jnp.asarray(array)
    if jnp.issubdtype(array.dtype, jnp.floating):
        if jnp.finfo(array.dtype).bits < 32:
            raise ValueError(f"{name} in {array.dtype}, which has lost them already (bfloat16 has no 257): use float32")
    elif not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name} in {array.dtype} are not real numbers")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _scales(scale: float | Sequence[float]) -> np.ndarray:
    scales = np.asarray(scale, np.float64)
    if scales.shape not in ((), (2,)) or not (scales > 0).all():
        raise ValueError(f"scale {scale}: a positive number, or two for (x, y)")
    return np.broadcast_to(scales, (2,))


def _on_grid(positions: jax.Array) -> jax.Array:
    positions = _precise("positions", positions)
    if positions.ndim < 1 or positions.shape[-1] != 2:
        raise ValueError(f"positions have shape {positions.shape}, not [..., N, 2] with columns (x, y)")
    return positions


def _aligned(y: jax.Array, angles: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return `y` in the type to compute in, and cosines and sines with as many axes."""
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"a rotation of {y.dtype} would be rounded: pass floating point")
    angles = _precise("angles", angles)
    if y.ndim < 1 or angles.ndim < 1 or y.shape[-1] != 2 * angles.shape[-1]:
        raise ValueError(f"{y.shape} has no {angles.shape} pairs of channels: the last axes must be Dh and Dh/2")
    missing = y.ndim - angles.ndim
    if missing < 0 or any(
        a not in (1, b) for a, b in zip(angles.shape[:-1], y.shape[max(missing, 0) : -1], strict=True)
    ):
        raise ValueError(f"angles {angles.shape} do not broadcast to the pairs of {y.shape}")
    compute = jnp.promote_types(y.dtype, angles.dtype)
    angles = jnp.expand_dims(angles, tuple(range(missing))).astype(compute)
    return y.astype(compute), jnp.cos(angles), jnp.sin(angles)
