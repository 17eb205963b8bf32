"""Inception-v3 of 2015-12-05, the network whose features define FID: Heusel et al. 2017 (arXiv:1706.08500).

Szegedy et al. 2015 (arXiv:1512.00567) with the deviations of that TensorFlow graph, which other Inception-v3s lack:
average pools leave padding out of the mean, the last block has a max pool where the others have an average, images are
resized as TensorFlow 1 did, without half a pixel's shift or antialiasing, and 1,008 classes. Names of units are those
of PyTorch's ports; a unit's parameters are a kernel [h, w, C, O] and the four vectors of a BatchNorm that is not
trained.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SIDE = 299  # pixels
FEATURES, CLASSES = 2048, 1008
_EPSILON = 1e-3
Size = int | tuple[int, int]
Units = Sequence[tuple[str, int, Size]]  # name, features, kernel: one after another
_VECTORS = {"scale": "bn.weight", "bias": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
Block = Callable[..., nn.Module]


class Unit(nn.Module):
    """Convolution, normalisation and ReLU: [B, H, W, C] -> [B, h, w, features]."""

    features: int
    kernel: Size
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the unit."""
        height, width = (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel
        kernel = self.param("kernel", nn.initializers.he_normal(), (height, width, x.shape[-1], self.features))
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        initial = {"scale": ones, "bias": zeros, "mean": zeros, "var": ones}
        v = {name: self.param(name, first, (1, 1, 1, self.features)) for name, first in initial.items()}
        x = jax.lax.conv_general_dilated(
            x, kernel, (self.stride,) * 2, self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return nn.relu((x - v["mean"]) * (v["scale"] * jax.lax.rsqrt(v["var"] + _EPSILON)) + v["bias"])


class Mixed(nn.Module):
    """Branches side by side, concatenated: first those of units, then that of a pool.

    A `halving` block ends each branch with stride 2, without padding. The units of a branch's fork, if any, end it side
    by side.
    """

    branches: Sequence[Units]
    forks: Sequence[Units] = ()
    pooled: int = 0  # features after the pool; 0 leaves it as it is
    pool: str = "average"
    halving: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the block."""
        outputs = []
        for units, fork in itertools.zip_longest(self.branches, self.forks, fillvalue=()):
            y = x
            for position, (name, features, kernel) in enumerate(units, start=1):
                last = self.halving and position == len(units)
                y = Unit(features, kernel, 2 if last else 1, "VALID" if last else "SAME", name=name)(y)
            outputs += [Unit(features, kernel, name=name)(y) for name, features, kernel in fork] or [y]
        if self.halving:
            y = nn.max_pool(x, (3, 3), (2, 2))
        elif self.pool == "max":
            y = nn.max_pool(x, (3, 3), (1, 1), "SAME")
        else:
            y = nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)
        outputs.append(Unit(self.pooled, 1, name="branch_pool")(y) if self.pooled else y)
        return jnp.concatenate(outputs, axis=-1)


def _block_35(pooled: int) -> Block:
    return partial(
        Mixed,
        (
            (("branch1x1", 64, 1),),
            (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
            (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        ),
        pooled=pooled,
    )


def _block_17(width: int) -> Block:
    long: list[tuple[int, Size]] = [(width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))]
    return partial(
        Mixed,
        (
            (("branch1x1", 192, 1),),
            (("branch7x7_1", width, 1), ("branch7x7_2", width, (1, 7)), ("branch7x7_3", 192, (7, 1))),
            tuple((f"branch7x7dbl_{i}", features, kernel) for i, (features, kernel) in enumerate(long, start=1)),
        ),
        pooled=192,
    )


def _block_8(pool: str) -> Block:
    def fork(branch: str) -> Units:
        return ((f"{branch}a", 384, (1, 3)), (f"{branch}b", 384, (3, 1)))

    return partial(
        Mixed,
        (
            (("branch1x1", 320, 1),),
            (("branch3x3_1", 384, 1),),
            (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)),
        ),
        forks=((), fork("branch3x3_2"), fork("branch3x3dbl_3")),
        pooled=192,
        pool=pool,
    )


_TO_17 = partial(
    Mixed,
    (
        (("branch3x3", 384, 3),),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
    ),
    halving=True,
)
_TO_8 = partial(
    Mixed,
    (
        (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)),
        (
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3),
        ),
    ),
    halving=True,
)
_BLOCKS: dict[str, Block] = {
    **{f"Mixed_5{name}": _block_35(pooled) for name, pooled in {"b": 32, "c": 64, "d": 64}.items()},
    "Mixed_6a": _TO_17,
    **{f"Mixed_6{name}": _block_17(width) for name, width in {"b": 128, "c": 160, "d": 160, "e": 192}.items()},
    "Mixed_7a": _TO_8,
    "Mixed_7b": _block_8("average"),
    "Mixed_7c": _block_8("max"),
}


class Inception(nn.Module):
    """Images [B, H, W, 3] in [0, 255] to features [B, 2048], and the probabilities [B, 1008] of the inception score.

    The graph of 2015 has no bias before these: Salimans et al. 2016 (arXiv:1606.03498) compute their score without it.
    """

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return features and probabilities."""
        x = (resized(images.astype(jnp.float32), SIDE) - 128) / 128
        x = Unit(32, 3, 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = Unit(32, 3, 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = nn.max_pool(Unit(64, 3, name="Conv2d_2b_3x3")(x), (3, 3), (2, 2))
        x = Unit(80, 1, name="Conv2d_3b_1x1")(x)
        x = nn.max_pool(Unit(192, 3, 1, "VALID", name="Conv2d_4a_3x3")(x), (3, 3), (2, 2))
        for name, block in _BLOCKS.items():
            x = block(name=name)(x)
        features = x.mean(axis=(1, 2))
        matrix = self.param("fc", nn.initializers.lecun_normal(), (FEATURES, CLASSES))
        return features, nn.softmax(features @ matrix)


def resized(images: jax.Array, side: int) -> jax.Array:
    """Return [B, side, side, C] of [B, H, W, C]: bilinear at y * H / side, as TensorFlow 1's resize_bilinear."""
    for axis in (1, 2):
        size = images.shape[axis]
        at = np.arange(side, dtype=np.float32) * np.float32(size / side)
        low = at.astype(int)
        share = jnp.asarray(at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        below, above = (jnp.take(images, i, axis=axis) for i in (low, np.minimum(low + 1, size - 1)))
        images = below + (above - below) * share
    return images


def parameters(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return {'Mixed_5b/branch1x1/kernel': ...} of arrays by the names and in the layouts of PyTorch's ports."""
    found = {"fc": np.ascontiguousarray(arrays["fc.weight"].T)}
    for name, array in arrays.items():
        unit, _, part = name.rpartition(".conv.")
        if part == "weight":
            path = unit.replace(".", "/")
            found[f"{path}/kernel"] = np.ascontiguousarray(array.transpose(2, 3, 1, 0))
            found |= {
                f"{path}/{ours}": arrays[f"{unit}.{theirs}"][None, None, None] for ours, theirs in _VECTORS.items()
            }
    return found
