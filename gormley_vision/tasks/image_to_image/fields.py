"""The keys of an image-to-image config, their smoke values, and checks of their combinations. Loads no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gormley_vision import schedules
from gormley_vision.errors import UserError
from gormley_vision.fields import (
    EVALUATION_FIELDS,
    IMAGE_FIELDS,
    LARGE,
    LARGEST_WIDTH,
    ON,
    Field,
    Value,
    average_fields,
    count,
)
from gormley_vision.models.sizes import PATCH_SIZES
from gormley_vision.tasks.feature_layers import check_layers
from gormley_vision.tasks.players import OBJECTIVES, optimizer_fields, weight

MASKS = ("box", "strokes", "side", "sides")
DEGRADATIONS = ("none", "downscale", *MASKS, "grey", "blur", "jpeg")

_PAIRS = {"translation.degradation": ("none",)}
_ENLARGE = ("espcn", "fsrcnn")
_UNET = {"generator.architecture": ("unet",)}
_EDSR = {"generator.architecture": ("edsr",)}
_PERCEIVES = {"translation.perceptual": ON}
_PLAYS = {"translation.adversarial": ON}

FIELDS: dict[str, Field] = {
    "log.samples": count(8, "pictures in a preview: each as input, output and target", 1000, may_change=True),
    **IMAGE_FIELDS,
    "translation.degradation": Field(
        "none", "how inputs are made from targets; none: pairs of pictures from two folders", DEGRADATIONS
    ),
    "translation.reverse": Field(False, "from the second picture of a pair to the first", when=_PAIRS),
    "translation.scale": Field(2, "of super-resolution", (2, 3, 4), when={"translation.degradation": ("downscale",)}),
    "translation.sigma": Field(
        1.5, "of the blur, pixels", at_least=0.1, at_most=100, when={"translation.degradation": ("blur",)}
    ),
    "translation.quality": Field(
        20, "of the JPEG file", at_least=1, at_most=100, when={"translation.degradation": ("jpeg",)}
    ),
    "translation.patch": count(
        0, "side of the square that a step cuts out at random, pixels; 0: the whole image", 8192, at_least=0
    ),
    "translation.turns": Field(False, "turn by 0, 90, 180 or 270 degrees at random"),
    "translation.adversarial": Field(
        1.0, "weight of the adversarial loss; 0: no discriminator", at_least=0, at_most=LARGE
    ),
    "translation.objective": Field(
        "non_saturating", "what the players descend (losses/adversarial.py)", OBJECTIVES, when=_PLAYS
    ),
    "translation.conditional": Field(True, "the discriminator sees the input beside the image", when=_PLAYS),
    "translation.discriminator_weight": Field(
        0.5, "of the discriminator's loss: pix2pix halves it", at_least=0, at_most=LARGE, when=_PLAYS
    ),
    **{
        f"translation.{name}": dataclasses.replace(weight(of), when=_PLAYS)
        for name, of in (
            ("r1", "half the squared gradient norm of D at targets"),
            ("r2", "the same at outputs"),
        )
    },
    "translation.l1": dataclasses.replace(weight("the mean absolute error, in [-1, 1]"), default=100.0),
    "translation.l2": weight("the mean squared error"),
    "translation.charbonnier": weight("the mean of sqrt(error^2 + 1e-6)"),
    "translation.perceptual": weight("the mean squared difference of a network's features"),
    "translation.features": Field(
        "random:0",
        "that network: vgg19:FILE.safetensors, lite0:FILE.safetensors (docs/style.md), random:SEED",
        when=_PERCEIVES,
    ),
    "translation.feature_layers": Field("relu5_4", "its layers, whose mean counts", when=_PERCEIVES),
    "translation.schedules": Field("", "numbers that change, as in gan.schedules (docs/gan.md)"),
    **average_fields("translation", "0 images", of="generator"),
    "generator.architecture": Field("unet", "the net", ("unet", "edsr", *_ENLARGE)),
    "generator.width": dataclasses.replace(
        count(64, "channels of the largest map (unet), or of every layer", LARGEST_WIDTH),
        when={"generator.architecture": ("unet", "edsr")},
    ),
    "generator.levels": dataclasses.replace(count(7, "halvings of the map", 13), when=_UNET),
    "generator.norm": Field(
        "instance", "of each picture, or of the batch at hand", ("instance", "batch", "none"), when=_UNET
    ),
    "generator.dropout": Field(
        0.5, "share left out in the innermost layers, in training", at_least=0, below=1, when=_UNET
    ),
    "generator.convolution": Field(
        "plain",
        "on the way down; gated and partial ones are for pictures with holes",
        ("plain", "gated", "partial"),
        when=_UNET,
    ),
    "generator.residual": Field(
        False, "add the output to the input, grey or filled with a mean, from which training then starts", when=_UNET
    ),
    "generator.blocks": dataclasses.replace(count(4, "residual blocks", 1000), when=_EDSR),
    "generator.residual_scale": Field(
        1.0, "factor of each block's branch (0.1 in large nets)", at_least=0, at_most=1, when=_EDSR
    ),
    "generator.bicubic_skip": Field(True, "add bicubic interpolation, from which training then starts", when=_EDSR),
    "discriminator.receptive_field": Field(70, "pixels one logit sees", tuple(PATCH_SIZES), when=_PLAYS),
    "discriminator.width": dataclasses.replace(count(64, "channels of the first layer", LARGEST_WIDTH), when=_PLAYS),
    "discriminator.norm": Field(
        "instance", "of each picture, or of the batch at hand", ("instance", "batch", "none"), when=_PLAYS
    ),
    **optimizer_fields("generator", 2e-4),
    **{
        key: dataclasses.replace(field, when={**field.when, **_PLAYS})
        for key, field in optimizer_fields("discriminator", 2e-4).items()
    },
    **EVALUATION_FIELDS,
}

TENSOR_KEYS = ("generator.width", "discriminator.width")

# Keys whose numbers a schedule may change.
SCHEDULED = (
    *(
        f"{player}_optimizer.{name}"
        for player in ("generator", "discriminator")
        for name in ("learning_rate", "momentum", "beta2")
    ),
    *(f"translation.{name}" for name in ("adversarial", "l1", "l2", "charbonnier", "perceptual", "r1", "r2")),
    "translation.ema_half_life",
)


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs: an image, and of pairs what the second folder's pictures are."""
    kind = config["data"]["target_kind"] if config["data"]["targets"] else "image"
    return {"image": "image", "target": kind} if config["translation"]["degradation"] == "none" else {"image": "image"}


def described(config: Mapping[str, Any], class_names: tuple[str, ...]) -> Mapping[str, Any]:
    """Describe a data set of the config that is not available."""
    from gormley_vision.data.features import Feature  # imports numpy

    data = config["data"]
    shape = (data["image_size"], data["image_size"], data["channels"])
    needed = needs(config)
    found = {"image": Feature("image", shape, "uint8")}
    if "target" not in needed:
        return found
    maps = needed["target"] == "label_map"
    second = Feature("label_map", shape[:2], "uint8", class_names, fill=255) if maps else found["image"]
    return found | {"target": second}


def smoke(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return values that shrink a run to seconds; made-up pictures have no pairs, so these are blurred ones."""
    small: dict[str, Value] = {
        "log.samples": 2,
        "generator.width": 4,
        "translation.schedules": "",
        "data.image_size": 32,
    }
    small |= {"translation.patch": 24 if config["generator"]["architecture"] != "unet" else 0}
    if config["eval"]["split"]:
        small["eval.split"] = "test"
    if config["translation"]["degradation"] == "none":
        small |= {"translation.degradation": "blur", "translation.reverse": False, "data.targets": ""}
    if config["generator"]["architecture"] == "unet":
        small["generator.levels"] = 5
    if config["translation"]["adversarial"]:
        small |= {"discriminator.width": 4, "discriminator.receptive_field": 16}
    return small


def multiple(config: Mapping[str, Any]) -> int:
    """Return what the sides of a net's input are a multiple of."""
    generator = config["generator"]
    return 2 ** generator["levels"] if generator["architecture"] == "unet" else 1


def side(config: Mapping[str, Any]) -> int:
    """Return the side of the targets in training, pixels."""
    return config["translation"]["patch"] or config["data"]["image_size"]


def is_on(config: Mapping[str, Any], name: str) -> bool:
    """Return whether a weight of `translation` is not 0 throughout."""
    options = config["translation"]
    return bool(options[name]) or f"translation.{name}" in schedules.parsed(options["schedules"])


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that contradicts itself.

    Raises:
        UserError: names the keys, and what to type instead.
    """
    schedules.check(config, "translation.schedules", FIELDS, SCHEDULED)
    options, data = config["translation"], config["data"]
    for name in ("adversarial", "perceptual"):  # without them nothing is made that a schedule could turn on
        if is_on(config, name) and not options[name]:
            raise UserError(
                f"translation.schedules turns on translation.{name}, which is 0: set it to the schedule's first "
                f"number, if need be a small one: --config.translation.{name}=1e-6"
            )
    if options["patch"] > data["image_size"]:
        raise UserError(
            f"translation.patch={options['patch']} is larger than the images: "
            f"--config.translation.patch={data['image_size']}"
        )
    if data["channels"] == 1 and options["degradation"] == "grey":
        raise UserError("translation.degradation=grey colours pictures again: --config.data.channels=3")
    _check_generator(config)
    _check_losses(config)


def _check_generator(config: Mapping[str, Any]) -> None:
    options, architecture, size = config["translation"], config["generator"]["architecture"], side(config)
    enlarges = options["degradation"] == "downscale"
    if enlarges and architecture == "unet":
        raise UserError(
            "a unet does not enlarge: --config.generator.architecture=edsr with translation.degradation=downscale"
        )
    if architecture == "edsr" and options["degradation"] not in ("downscale", "blur", "jpeg"):
        raise UserError(
            f"edsr makes images from images alike: --config.generator.architecture=unet with "
            f"translation.degradation={options['degradation']}"
        )
    if config["generator"]["convolution"] == "partial" and options["degradation"] not in MASKS:
        raise UserError(
            "generator.convolution=partial needs holes: --config.translation.degradation=strokes (or "
            f"{', '.join(name for name in MASKS if name != 'strokes')}), or --config.generator.convolution=gated"
        )
    if not enlarges and architecture in _ENLARGE:
        raise UserError(
            f"generator.architecture={architecture} enlarges: --config.translation.degradation=downscale, or "
            "--config.generator.architecture=unet"
        )
    unit = multiple(config) if not enlarges else options["scale"]
    if size % unit:
        key = "translation.patch" if options["patch"] else "data.image_size"
        what = f"scale {unit}" if enlarges else f"{config['generator']['levels']} halvings"
        if size < unit and not enlarges:
            raise UserError(f"{key}={size} is less than {what} need: --config.generator.levels={size.bit_length() - 1}")
        levels = "" if enlarges else ", or fewer --config.generator.levels"
        raise UserError(
            f"{key}={size} does not divide by {unit} ({what}): --config.{key}={size // unit * unit}{levels}"
        )


def _check_losses(config: Mapping[str, Any]) -> None:
    options, size = config["translation"], side(config)
    if options["perceptual"]:
        check_layers("translation.feature_layers", options["feature_layers"], options["features"], size)
        if config["data"]["channels"] != 3:
            raise UserError("translation.perceptual is of colour pictures: --config.data.channels=3")
    if not any(is_on(config, name) for name in ("adversarial", "perceptual", "l1", "l2", "charbonnier")):
        raise UserError("no loss has a weight: --config.translation.l1=100")
    if not options["adversarial"]:
        if config["accumulate"] > 1 and config["generator"]["norm"] == "batch" and multiple(config) > 1:
            raise _of_one_batch("generator")
        return
    field = config["discriminator"]["receptive_field"]
    if size < PATCH_SIZES[field]:
        fits = max(field for field, pixels in PATCH_SIZES.items() if pixels <= size)
        raise UserError(
            f"discriminator.receptive_field={field} needs images of at least {PATCH_SIZES[field]} pixels, and these "
            f"have {size}: --config.discriminator.receptive_field={fits}"
        )
    if config["accumulate"] > 1:
        for player in ("generator", "discriminator"):
            if config[player]["norm"] == "batch" and (player == "discriminator" or multiple(config) > 1):
                raise _of_one_batch(player)
        if options["objective"] == "relativistic_average":
            raise UserError("accumulate: relativistic_average compares with the mean of a batch: --config.accumulate=1")


def _of_one_batch(player: str) -> UserError:
    return UserError(
        f"accumulate: {player}.norm=batch would be of each microbatch, another model: "
        f"--config.{player}.norm=instance, or --config.accumulate=1"
    )
