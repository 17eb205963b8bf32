"""Absolute position embeddings of a grid of patches: the fixed sine-cosine table, and resizing of learned ones.

Pure functions. Tables are [H*W, D] in row-major order (token t is at x = t % W, y = t // W) and contain only patches:
class and register tokens have no position on the grid, and the caller splits their embeddings off.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

ResizeConvention = Literal["google", "timm", "huggingface"]


def sincos_2d(height: int, width: int, dim: int, temperature: float = 10000.0) -> jax.Array:
    """Return [H*W, D] float32: [sin x w, cos x w, sin y w, cos y w], with D/4 frequencies w_k = T^(-k / (D/4 - 1)).

    This is `posemb_sincos_2d` of big_vision (Beyer et al. 2022, arXiv:2205.01580) and vit-pytorch: the last frequency
    is exactly 1 / T. big_vision says that it follows MoCo-v3, but MoCo-v3 (arXiv:2104.02057) divides k by D/4 and
    lets its first half vary down the rows; timm divides by D/4 too and orders [sin y, sin x, cos y, cos x]. Those are
    different tables. Computed on the host in float64 and rounded once.
    """
    _grid("the grid", (height, width))
    if dim % 4 or dim < 8:
        raise ValueError(f"sine and cosine of x and y: dim must be a multiple of 4 and at least 8, not {dim}")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} is not positive")
    count = dim // 4
    frequencies = np.float64(temperature) ** (-np.arange(count) / (count - 1))
    y, x = np.divmod(np.arange(height * width), width)
    x, y = x[:, None] * frequencies, y[:, None] * frequencies
    return jnp.asarray(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=-1), jnp.float32)


def resize_position_embeddings(
    table: jax.Array, old_grid: tuple[int, int], new_grid: tuple[int, int], convention: ResizeConvention
) -> jax.Array:
    """Resize `table` [h*w, D] of `old_grid` (h, w) to `new_grid` (h', w'): [h'*w', D], of the same float type.

    Libraries differ in how, so the caller names the one that the weights come from:

    "google"       bilinear, the corner patches kept in place: vision_transformer's and big_vision's
                   scipy.ndimage.zoom(order=1), torch's align_corners=True. For a few pairs of lengths (8 -> 26,
                   16 -> 30, 28 -> 14; not 14 -> 24) scipy leaves the grid by a rounding error and fills the last
                   row or column with zeros; here it is the intended corner.
    "timm"         `resample_abs_pos_embed`: bicubic with a = -0.5, cell centres (align_corners=False), antialiased:
                   the kernel widens when shrinking; taps outside the grid are dropped and the others renormalised.
    "huggingface"  `interpolate_pos_encoding`: bicubic with a = -0.75, cell centres, no antialiasing; taps outside the
                   grid repeat its edge. (torch's F.interpolate changes a with `antialias`.)

    A table of the same grid is returned unchanged. Others are computed in float32, or float64 if the table is.

    Raises:
        ValueError: the table, a grid or the convention is invalid.
    """
    table = jnp.asarray(table)
    (h, w), (new_h, new_w) = _grid("old_grid", old_grid), _grid("new_grid", new_grid)
    if convention not in get_args(ResizeConvention):
        raise ValueError(f"convention {convention!r}: one of {', '.join(get_args(ResizeConvention))}")
    if table.ndim != 2 or table.shape[0] != h * w:
        raise ValueError(
            f"a table {table.shape} is not [{h}*{w}, D]: split the class and register tokens off before resizing"
        )
    if not jnp.issubdtype(table.dtype, jnp.floating):
        raise ValueError(f"a table of {table.dtype} would be rounded: pass floating point")
    if (h, w) == (new_h, new_w):
        return table
    compute = jnp.promote_types(table.dtype, jnp.float32)
    rows, columns = (jnp.asarray(_weights(*n, convention), compute) for n in ((h, new_h), (w, new_w)))
    resized = jnp.einsum(
        "yh,xw,hwd->yxd",
        rows,
        columns,
        table.astype(compute).reshape(h, w, -1),
        precision=jax.lax.Precision.HIGHEST,  # accelerators would round to bfloat16 or TF32
    )
    return resized.reshape(new_h * new_w, -1).astype(table.dtype)


def _weights(old: int, new: int, convention: ResizeConvention) -> np.ndarray:
    """Return weights [new, old] float64 along one axis, rows sum to 1: every convention is separable."""
    if convention == "google":
        at = np.arange(new) * (old - 1) / max(new - 1, 1)  # a single new patch is the old one at 0
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)))
    at = (np.arange(new) + 0.5) * old / new - 0.5
    if convention == "timm":
        weights = _cubic((at[:, None] - np.arange(old)) / max(old / new, 1), -0.5)
        return weights / weights.sum(axis=-1, keepdims=True)
    taps = np.floor(at).astype(int)[:, None] + np.arange(-1, 3)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new)[:, None], np.clip(taps, 0, old - 1)), _cubic(at[:, None] - taps, -0.75))
    return weights


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Return Keys' kernel of cubic convolution (1981), zero from |x| = 2."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _grid(name: str, grid: tuple[int, int]) -> tuple[int, int]:
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"{name} is {grid}, not (height, width) in patches")
    return grid
