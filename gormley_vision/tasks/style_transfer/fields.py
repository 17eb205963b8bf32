"""The keys of a config of style transfer, their smoke values, and checks of their combinations. Loads no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.fields import IMAGE_FIELDS, LARGE, LARGEST_WIDTH, OPTIMIZER_FIELDS, Field, Value, average_fields
from gormley_vision.tasks.feature_layers import check_layers, layers_of

FAKE = "fake"  # a drawn picture, in place of a file

_GATYS = {"style.method": ("gatys",)}
_NETS = {"style.method": ("feedforward", "adain")}
_ONE_STYLE = {"style.method": ("gatys", "feedforward")}


def _weight(default: float, meaning: str) -> Field:
    return Field(default, meaning, at_least=0, at_most=1e12)


def _of_networks(fields: Mapping[str, Field]) -> dict[str, Field]:
    return {key: dataclasses.replace(field, when={**_NETS, **field.when}) for key, field in fields.items()}


FIELDS: dict[str, Field] = {
    **IMAGE_FIELDS,
    "style.method": Field(
        "gatys",
        "optimise the pixels, train a net for one style, or one for any style (docs/style.md)",
        ("gatys", "feedforward", "adain"),
    ),
    "style.content": Field(FAKE, "the picture to restyle, a file; 'fake' for a drawn one", when=_GATYS),
    "style.image": Field(FAKE, "the picture with the style, a file; 'fake' for a drawn one", when=_ONE_STYLE),
    "style.size": Field(
        256, "longer side of these pictures after a resize, pixels", at_least=5, at_most=8192, when=_ONE_STYLE
    ),
    "style.start": Field("content", "the picture before the first step", ("content", "noise"), when=_GATYS),
    "style.features": Field(
        "random:0",
        "network whose features are compared: vgg19:FILE.safetensors, lite0:FILE.safetensors, random:SEED for textures",
    ),
    "style.pooling": Field("max", "of VGG-19 and of random filters", ("max", "average")),
    "style.normalised": Field(True, "divide each of its channels by its mean over the two pictures or a first batch"),
    "style.content_layers": Field("relu4_2", "layers whose values are kept, 'relu3_2,relu4_2'"),
    "style.style_layers": Field(
        "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "layers whose statistics are those of the style; their mean counts"
    ),
    "style.gram": Field(
        "per_position",
        "scale of Gram matrices, without which weights mean nothing (losses/style.py)",
        ("per_position", "per_entry", "gatys"),
        when=_ONE_STYLE,
    ),
    "style.content_weight": _weight(1.0, "of the content loss"),
    "style.style_weight": _weight(1.0, "of the style loss"),
    "style.tv_weight": _weight(0.0, "of the total variation"),
    "style.optimizer": Field("lbfgs", "L-BFGS with a line search, or Adam", ("lbfgs", "adam"), when=_GATYS),
    "style.learning_rate": Field(
        0.08,
        "of Adam, where pixels are from -1 to 1",
        at_least=0,
        at_most=LARGE,
        when={**_GATYS, "style.optimizer": ("adam",)},
    ),
    "style.width": Field(
        32,
        "channels of the net's first layer",
        at_least=1,
        at_most=LARGEST_WIDTH,
        when={"style.method": ("feedforward",)},
    ),
    **_of_networks(average_fields("style", "0 images", of="weights")),
    **_of_networks(OPTIMIZER_FIELDS),
}

SAMPLING: dict[str, Field] = {
    "content": Field("", "a picture's file to restyle by a network; '' for pictures of the first batch"),
    "image": Field("", "a picture's file with the style, of adain; '' for pictures of the first batch"),
    "size": Field(0, "longer side of these pictures after a resize, pixels; 0 for their own", at_least=0, at_most=8192),
    "alpha": Field(1.0, "strength of the style, of adain: 0 for none", at_least=0, at_most=1),
}


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs: an image; none if the picture is optimised."""
    return {} if config["style"]["method"] == "gatys" else {"image": "image"}


def minibatches(config: Mapping[str, Any]) -> int:
    """Return how many minibatches a step reads: AdaIN restyles the first by the second."""
    return 2 if config["style"]["method"] == "adain" else 1


def smoke(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return values that shrink a run to seconds: drawn pictures, few random filters."""
    method = config["style"]["method"]
    small: dict[str, Value] = {
        "data.image_size": 16,
        "style.features": "random:0",
        "style.content_layers": "relu2_1",
        "style.style_layers": "relu1_1,relu2_1",
    }
    own: dict[str, dict[str, Value]] = {
        "gatys": {"style.content": FAKE, "style.image": FAKE, "style.size": 16},
        "feedforward": {"style.image": FAKE, "style.size": 16, "style.width": 16},
        "adain": {},
    }
    return small | own[method]


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that contradicts itself.

    Raises:
        UserError: unknown layers, no layers, or images that a network does not read. Names what to type.
    """
    style, data = config["style"], config["data"]
    side = data["image_size"] if style["method"] == "adain" else style["size"]
    if style["method"] == "adain" and style["features"].startswith("lite0"):
        raise UserError("adain's decoder mirrors VGG-19: --config.style.features=vgg19:FILE.safetensors or random:SEED")
    for key in ("content_layers", "style_layers"):
        check_layers(f"style.{key}", style[key], style["features"], side)
    if style["method"] == "gatys":
        return
    if data["channels"] != 3:
        raise UserError("style transfer is of colour pictures: --config.data.channels=3")
    if style["method"] == "adain":
        layers = layers_of(style["content_layers"])
        if len(layers) != 1 or not layers[0].endswith("_1") or layers == ("relu1_1",):
            raise UserError("adain decodes one layer, the first of a block: --config.style.content_layers=relu4_1")
        factor = 2 ** (int(layers[0][4]) - 1)
        if data["image_size"] % factor or data["image_size"] < 2 * factor:
            near = max(2 * factor, nearest_multiple(data["image_size"], factor))
            raise UserError(
                f"adain's {layers[0]} halves images until one pixel stands for {factor}: "
                f"--config.data.image_size={near}"
            )
