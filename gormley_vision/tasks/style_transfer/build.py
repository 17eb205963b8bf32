"""Makes the task from a config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision.data.features import Description
from gormley_vision.models.style_nets import Decoder, TransformerNet
from gormley_vision.models.vgg import CHANNELS
from gormley_vision.tasks.feature_layers import layers_of
from gormley_vision.tasks.feature_nets import FeatureNet, open_weights
from gormley_vision.tasks.single_network import Training
from gormley_vision.tasks.style_transfer.adain import StyleDecoder
from gormley_vision.tasks.style_transfer.feedforward import Painter
from gormley_vision.tasks.style_transfer.gatys import PictureOptimisation
from gormley_vision.tasks.style_transfer.objective import Objective
from gormley_vision.tasks.style_transfer.pictures import open_picture


def make_style_transfer(
    config: Mapping[str, Any], description: Description
) -> PictureOptimisation | Painter | StyleDecoder:
    """Open pictures and the feature network, and make what `style.method` names.

    Raises:
        UserError: one of these files cannot be read.
    """
    style, data = config["style"], config["data"]
    dtype = jnp.dtype(config["compute_dtype"])
    content_layers, style_layers = layers_of(style["content_layers"]), layers_of(style["style_layers"])
    layers = tuple(dict.fromkeys([*content_layers, *style_layers]))
    architecture, weights = open_weights(style["features"], layers, "style.features")
    net = FeatureNet(architecture, weights, layers, style["pooling"], style["normalised"], dtype)
    losses = {name: style[name] for name in ("content_weight", "style_weight", "tv_weight")}
    images = {"image_shape": (data["image_size"], data["image_size"], 3), "flip": data["flip"]}
    if style["method"] == "adain":
        decoder = Decoder(content_layers[0], dtype)
        features = jnp.zeros((1, 4, 4, CHANNELS[decoder.layer]))
        training = _training(config, description, decoder, features)
        return StyleDecoder(decoder, net, style_layers, **losses, training=training, **images)
    objective = Objective(net, content_layers, style_layers, **losses, gram=style["gram"])
    style_picture = open_picture("style.image", style["image"], style["size"])
    if style["method"] == "feedforward":
        network = TransformerNet(style["width"], dtype)
        training = _training(config, description, network, jnp.zeros((1, *images["image_shape"])))
        return Painter(network, objective, training, style_picture, **images)
    return PictureOptimisation(
        objective=objective,
        content_picture=open_picture("style.content", style["content"], style["size"]),
        style_picture=style_picture,
        start=style["start"],
        optimizer_name=style["optimizer"],
        learning_rate=style["learning_rate"],
    )


def _training(config: Mapping[str, Any], description: Description, network: Any, inputs: jax.Array) -> Training:
    params = jax.eval_shape(network.init, jax.random.key(0), inputs)["params"]
    return Training.of(config, "style", description.length, params)
