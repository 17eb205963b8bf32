"""The network whose features are compared: VGG-19 from a file, or random filters of the same shapes.

Random filters synthesise textures (Ustyuzhaninov et al. 2016, arXiv:1606.00021). They know no objects: what they keep
as content is edges and colours. A classifier trained here is not offered: the features that it gives others are pooled,
and a Gram matrix is of many positions.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.errors import UserError
from gormley_vision.files import user_path
from gormley_vision.models import vgg

Maps = dict[str, jax.Array]  # by layer
log = logging.getLogger(__name__)
_LEAST = 0.1  # of the layer's mean: a channel that is silent on these pictures may not be on others


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNet:
    """A frozen network. Each channel is divided by a scale, of `scales`.

    As activations are linear in a filter, this is a network with other filters: the "normalised VGG" of Gatys et al.
    2015, whose mean activation is 1. Deviation: the mean is over the pictures at hand and not ImageNet's.
    """

    weights: Mapping[str, np.ndarray]
    layers: tuple[str, ...]
    pooling: Literal["max", "average"]
    normalised: bool
    dtype: Any

    def __call__(self, pictures: jax.Array, scales: Maps) -> Maps:
        """Return features [B, h, w, C] of pictures [B, H, W, 3] in [-1, 1]."""
        found = vgg.feature_maps(as_input(self.weights), pictures, self.layers, self.pooling, self.dtype)
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
        return {layer: jnp.ones(vgg.CHANNELS[layer]) for layer in self.layers}


def as_input(arrays: Any) -> Any:
    """Hide that arrays are constants: the compiler would compute what follows from them itself, for minutes."""
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, arrays))


def open_weights(text: str, layers: tuple[str, ...], key: str) -> dict[str, np.ndarray]:
    """Read or draw the weights that these layers need; `text` is the value of the config's `key`.

    Raises:
        UserError: it is no such network, or cannot be read; says what to type instead.
    """
    form, _, rest = text.partition(":")
    if form == "random" and rest.isdecimal():
        return vgg.random_weights(int(rest), layers)
    if form == "vgg19" and rest:
        return _vgg19(user_path(rest), layers)
    raise UserError(f"{key}={text!r}: name vgg19:FILE.safetensors or random:SEED")


def _vgg19(path: Path, layers: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError("reading a VGG-19 file needs safetensors: pip install 'gormley_vision[weights]'") from None
    wanted = vgg.torchvision_shapes(layers)
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            arrays = {name: file.get_tensor(name) for name in wanted if name in names}
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): docs/style.md says how to write it") from None
    for name, shape in wanted.items():
        if name not in arrays or arrays[name].shape != shape:
            found = arrays[name].shape if name in arrays else "missing"
            raise UserError(f"{path} is not torchvision's vgg19: {name} is {found}, where {shape} is expected")
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    log.info("features of VGG-19 (%s), sha256 of its weights to %s %s", path.name, vgg.up_to(layers)[-1], digest)
    return vgg.from_torchvision(arrays, layers)
