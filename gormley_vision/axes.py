"""The names of parameters' axes, and what follows from them.

A module names the axes of each parameter when it creates it, as usual in flax:

    self.param("kernel", nn.with_logical_partitioning(init, ("embed", "mlp")), (64, 256))

flax then keeps each parameter in a box with its names until `nn.unbox`; the names are read from the boxes of an
abstract `init`. They decide how an array is sharded (`mesh.rules`, training/sharding.py), and which parameters an
optimizer treats as matrices (tasks/optimizers.py). Rules may use a module's own names; optimizers only know `NAMES`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.core.meta import is_axis_metadata

NAMES = {
    "embed": "channels of a token",
    "heads": "attention heads; together with the next axis one side of a matrix",
    "kv_heads": "key and value heads where several query heads share one; with the next axis one side of a matrix",
    "head_dim": "channels of a head",
    "mlp": "channels inside an MLP",
    "vocab": "tokens in the vocabulary",
    "classes": "classes of a classifier",
    "representation": "channels of the layer before a classifier's head",
    "layers": "layers of the same kind, stacked",
    "qkv": "queries, keys, values, stacked",
    "tokens": "positions in a sequence, of embeddings that are added to tokens or are tokens",
    "one": "of length 1",
    "coordinates": "x and y",
    "frequencies": "pairs of channels that RoPE rotates",
    "patch_height": "of a patch; together with the next two axes one side of a matrix",
    "patch_width": "of a patch",
    "patch_in": "channels of an image, in a patch embedding",
    "patch_out": "channels of a token, in a patch embedding",
    "conv_height": "of a convolution's kernel; together with the next two axes one side of a matrix",
    "conv_width": "of a convolution's kernel",
    "conv_in": "input channels of a convolution",
    "conv_out": "output channels of a convolution",
    "features": "channels of a feature map, in norms and biases",
    "map": "a feature map flattened to one vector",
    "channels": "channels of an image, as input or output of a convolution",
    "latent": "a generator's noise, and one-hot labels",
    "logits": "a discriminator's logits",
}
# Each index of these axes has its own matrix or vector.
_STACKED = frozenset({"layers", "qkv", "tokens", "one", "coordinates"})
# These make one side of a matrix together with the axis that follows.
_WITH_NEXT = frozenset({"heads", "kv_heads", "patch_height", "patch_width", "conv_height", "conv_width"})
# A matrix with one of these reads the data or returns the result: an embedding or a head.
_ENDS = frozenset({"vocab", "classes", "patch_in", "channels", "latent", "logits"})
_EMBEDDED = frozenset({"tokens", "patch_in", "patch_out"})


class Parameter(NamedTuple):
    """A parameter of an abstract `init`; `names` is None if an axis has no name, or one that is not in `NAMES`."""

    path: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None

    def __str__(self) -> str:
        return f"{self.path} {list(self.shape)}"


def map_parameters(function: Callable[[Parameter], Any], params: Any) -> Any:
    """Map `function` over the parameters of an abstract `init`. The result has their structure without boxes."""

    def map_one(path: Any, leaf: Any) -> Any:
        names = tuple(leaf.names) if isinstance(leaf, nn.Partitioned) else (None,)
        known = tuple(map(str, names)) if NAMES.keys() >= set(names) else None
        return function(Parameter(jax.tree_util.keystr(path, simple=True, separator="/"), nn.unbox(leaf).shape, known))

    return jax.tree_util.tree_map_with_path(map_one, params, is_leaf=is_axis_metadata)


def sides(names: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Group the axes by the sides of a matrix, leaving out stacked ones. A vector has one side.

    ('layers', 'embed', 'heads', 'qkv', 'head_dim') -> [(1,), (2, 4)]: from `embed` to all heads' channels, for each
    layer and for each of queries, keys and values.
    """
    found: list[tuple[int, ...]] = []
    open_side = False
    for axis, name in enumerate(names):
        if name in _STACKED:
            continue
        if open_side:
            found[-1] += (axis,)
        else:
            found.append((axis,))
        open_side = name in _WITH_NEXT
    return found


def is_end(names: tuple[str, ...]) -> bool:
    """Return whether a matrix reads the data (an embedding, a first convolution) or returns the result (a head)."""
    return bool(_ENDS & set(names))


def is_embedding(names: tuple[str, ...]) -> bool:
    """Return whether a parameter makes tokens from the data or is added to them, before the first layer."""
    return bool(_EMBEDDED & set(names)) or (names[0] == "vocab" and len(names) > 1)
