"""What the axes of parameters are called, and what their names say.

A module names the axes of each parameter once, where it makes it, in flax's own way:

    self.param("kernel", nn.with_logical_partitioning(init, ("embed", "mlp")), (64, 256))

flax then keeps each parameter in a box with its names until `nn.unbox`; the boxes of an abstract `init` are where names
are read. Two things follow from them: where an array lies on a mesh (`mesh.rules`, training/sharding.py), and which
parameters are matrices, of what (tasks/optimizers.py). Rules may have names of a module's own; optimizers know `NAMES`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.core.meta import is_axis_metadata

NAMES = {
    "embed": "channels of a token",
    "heads": "attention heads; with the axis after it one side of a matrix",
    "head_dim": "channels of a head",
    "mlp": "channels inside an MLP",
    "vocab": "tokens that there are",
    "classes": "classes that there are",
    "representation": "channels of the layer before a classifier's head",
    "layers": "layers of the same kind, stacked",
    "qkv": "queries, keys, values, stacked",
    "tokens": "places in a sequence: rows that are added to tokens or are tokens",
    "one": "of length 1",
    "coordinates": "x and y",
    "frequencies": "pairs of channels that RoPE turns",
    "patch_height": "of a patch; with the two after it one side of a matrix",
    "patch_width": "of a patch",
    "patch_in": "channels of an image, in a patch embedding",
    "patch_out": "channels of a token, in a patch embedding",
    "conv_height": "of a convolution's kernel; with the two after it one side of a matrix",
    "conv_width": "of a convolution's kernel",
    "conv_in": "channels that a convolution reads",
    "conv_out": "channels that a convolution makes",
    "features": "channels of a map, in what has one number for each: norms and biases",
    "map": "a feature map as one vector",
    "channels": "channels of an image, which a convolution reads or makes",
    "latent": "a generator's noise, and labels beside it",
    "logits": "a discriminator's judgements",
}
# Along these lie things beside each other, each with its own matrix or vector.
_STACKED = frozenset({"layers", "qkv", "tokens", "one", "coordinates"})
# These make one side of a matrix together with what follows them.
_WITH_NEXT = frozenset({"heads", "patch_height", "patch_width", "conv_height", "conv_width"})
# A matrix with one of these reads the data or makes the answer: an embedding or a head.
_ENDS = frozenset({"vocab", "classes", "patch_in", "channels", "latent", "logits"})
_EMBEDDED = frozenset({"tokens", "patch_in", "patch_out"})


class Parameter(NamedTuple):
    """A parameter of an abstract `init`; `names` is None where an axis has none, or one that `NAMES` lack."""

    path: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None

    def __str__(self) -> str:
        return f"{self.path} {list(self.shape)}"


def map_parameters(function: Callable[[Parameter], Any], params: Any) -> Any:
    """`function` of each parameter of an abstract `init`, in the structure that they have without boxes."""

    def of(path: Any, leaf: Any) -> Any:
        names = tuple(leaf.names) if isinstance(leaf, nn.Partitioned) else (None,)
        known = tuple(map(str, names)) if NAMES.keys() >= set(names) else None
        return function(Parameter(jax.tree_util.keystr(path, simple=True, separator="/"), nn.unbox(leaf).shape, known))

    return jax.tree_util.tree_map_with_path(of, params, is_leaf=is_axis_metadata)


def sides(names: tuple[str, ...]) -> list[tuple[int, ...]]:
    """The axes that belong together, a tuple for each side of a matrix, stacked ones left out; a vector has one side.

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
    """Whether a matrix reads the data (an embedding, a first convolution) or makes the answer (a head)."""
    return bool(_ENDS & set(names))


def is_embedding(names: tuple[str, ...]) -> bool:
    """Whether a parameter makes tokens of the data or is added to them, below the first layer."""
    return bool(_EMBEDDED & set(names)) or (names[0] == "vocab" and len(names) > 1)
