"""Makes the task from a config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision.data.features import Description
from gormley_vision.models.vit import ViT
from gormley_vision.tasks.masked_patches.fields import hidden_count
from gormley_vision.tasks.masked_patches.network import MaskedPatches
from gormley_vision.tasks.masked_patches.task import PatchReconstruction
from gormley_vision.tasks.single_network import Training


def make_masked_patches(config: Mapping[str, Any], description: Description) -> PatchReconstruction:
    """Make the networks and their optimizer."""
    data, options = config["data"], config["masked_patches"]
    dtype = jnp.dtype(config["compute_dtype"])
    decoder = {name: options[name] for name in ("decoder_width", "decoder_depth", "decoder_heads")}
    vit = ViT(classes=0, dtype=dtype, **config["vit"])
    network = MaskedPatches(vit=vit, method=options["method"], dtype=dtype, **decoder)
    shape = (data["image_size"], data["image_size"], data["channels"])
    patches = (data["image_size"] // vit.patch_size) ** 2
    count = hidden_count(options["ratio"], patches)
    inputs = jnp.zeros((1, *shape)), jnp.zeros((1, patches), jnp.int32)
    params = jax.eval_shape(lambda key: network.init(key, *inputs, count), jax.random.key(0))["params"]
    return PatchReconstruction(
        network=network,
        training=Training.of(config, "masked_patches", description.length, params),
        image_shape=shape,
        hidden=count,
        normalised=options["normalised"],
        flip=data["flip"],
        shift=options["shift"],
    )
