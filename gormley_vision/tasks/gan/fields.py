"""The keys of a GAN's config, their smoke values, and checks of their combinations. Loads no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gormley_vision import schedules
from gormley_vision.augmentation import policies
from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.fields import (
    EXAMINATION_FIELDS,
    IMAGE_FIELDS,
    LARGE,
    LARGEST_WIDTH,
    ON,
    SAMPLE_EVALUATION_FIELDS,
    Field,
    Value,
    average_fields,
    count,
    duration,
)
from gormley_vision.models.sizes import PATCH_SIZES, halvings
from gormley_vision.tasks.players import OBJECTIVES, RELATIVISTIC, optimizer_fields, weight

PENALTIES = ("r1", "r2", "gradient_penalty", "dragan")
ROPES = ("none", "roformer", "llama", "naver_axial", "naver_mixed", "timm", "dinov3")


def _if(player: str, *architectures: str) -> dict[str, tuple[Value, ...]]:
    return {f"{player}.architecture": architectures}


def _player_fields(player: str) -> dict[str, Field]:
    """Return the keys that both players have, each for their architectures' own."""
    return {
        f"{player}.width": count(
            64,
            "channels of the largest map, doubling with each halving (dcgan, patchgan, doubling), or of every layer",
            LARGEST_WIDTH,
        ),
        f"{player}.kernel_size": Field(
            4, "4 as in most implementations, 5 as in the original", (4, 5), when=_if(player, "dcgan")
        ),
        f"{player}.depth": dataclasses.replace(
            count(2, "hidden layers (dense), blocks a stage (r3gan), layers (vit)", 1000),
            when=_if(player, "dense", "r3gan", "vit"),
        ),
        f"{player}.doubling": Field(
            False, "channels double with each halving of the map, as at 64 pixels", when=_if(player, "resnet")
        ),
        f"{player}.initial_range": Field(
            0.0, "kernels start uniform in +- this; 0: He's", at_least=0, at_most=1, when=_if(player, "dense")
        ),
        f"{player}.heads": dataclasses.replace(
            count(4, "attention heads; divides the width", 1000), when=_if(player, "vit")
        ),
        f"{player}.patch_size": dataclasses.replace(
            count(4, "pixels along a patch; divides the image size", 8192), when=_if(player, "vit")
        ),
        f"{player}.rope": Field("naver_axial", "how queries and keys are rotated", ROPES, when=_if(player, "vit")),
    }


FIELDS: dict[str, Field] = {
    "log.samples": count(64, "images in a sample grid, or points in a plot", 10**5, may_change=True),
    "gan.example": Field("image", "what is generated: the data set's feature of this name", ("image", "vector")),
    **{
        key: dataclasses.replace(field, when={**field.when, "gan.example": ("image",)})
        for key, field in {**IMAGE_FIELDS, "eval.extractor": SAMPLE_EVALUATION_FIELDS["eval.extractor"]}.items()
    },
    **EXAMINATION_FIELDS,
    **{key: field for key, field in SAMPLE_EVALUATION_FIELDS.items() if key != "eval.extractor"},
    "log.extent": Field(
        3.0,
        "plots of vectors go from minus this to this",
        at_least=1e-6,
        at_most=LARGE,
        may_change=True,
        when={"gan.example": ("vector",)},
    ),
    "gan.conditional": Field(False, "the class label is an input of both players"),
    "gan.objective": Field("non_saturating", "what the players descend (losses/adversarial.py)", OBJECTIVES),
    "gan.label_smoothing": Field(
        0.0,
        "real images' target is less than 1 by so much",
        at_least=0,
        below=1,
        when={"gan.objective": ("non_saturating", "saturating")},
    ),
    "gan.r1": weight("half the squared gradient norm of D at real images"),
    "gan.r2": weight("the same at fake images"),
    "gan.gradient_penalty": weight("WGAN-GP's, between real and fake images (10 in the paper)"),
    "gan.dragan": weight("DRAGAN's, around real images (10 in the paper)"),
    "gan.penalty_every": Field(
        1,
        "steps from one turn of the penalties to the next, with that much more weight",
        at_least=1,
        at_most=10_000,
    ),
    "gan.difference": Field(
        0.0,
        "estimate r1 and r2 by a difference of this size in a random direction (0.01); 0: exact",
        at_least=0,
        at_most=10,
    ),
    "gan.clip_weights": Field(
        0.0, "D's parameters are cut off at +- this after an update; 0: not", at_least=0, at_most=LARGE
    ),
    **{
        f"gan.{name}": Field(1.0, text, at_least=0, at_most=LARGE, when={"discriminator.conditioning": ("classifier",)})
        for name, text in (
            ("classifier_weight", "of the errors of D's classes in its loss"),
            ("fake_classifier_weight", "of fake images in those errors; 0: D learns classes from real images alone"),
            ("generator_classifier_weight", "of the errors of D's classes in the generator's loss"),
        )
    },
    "gan.discriminator_steps": count(1, "k: discriminator updates, each on a fresh minibatch, per step", 1000),
    "gan.generator_factor": count(1, "fakes in the generator's update for each image of a minibatch", 1000),
    "gan.shared_fakes": Field(False, "the generator update reuses the last discriminator update's noise"),
    "gan.simultaneous": Field(False, "the generator plays against the discriminator from before its last update"),
    "gan.dequantize": Field(
        False, "add noise of up to one of 256 levels to real images", when={"gan.example": ("image",)}
    ),
    "gan.augment": Field(
        "",
        "what images go through before D: 'diffaugment', 'bgc', ... (augmentation/policies.py); '' for none",
        when={"gan.example": ("image",)},
    ),
    "gan.augment_target": Field(
        0.0,
        "mean sign of D's real logits that the augmentation's probability is steered to (ADA: 0.6); 0: fixed",
        at_least=0,
        at_most=1,
        when={"gan.augment": ON},
    ),
    "gan.augment_probability": Field(
        1.0, "of each transform, where it is not steered", at_least=0, at_most=1, when={"gan.augment": ON}
    ),
    "gan.augment_speed": duration(
        "500k images", "in which a steered probability may go from 0 to 1", when={"gan.augment_target": ON}
    ),
    "gan.schedules": Field("", "numbers that change: 'KEY = 0: 2e-4, 10M: 5e-5 cosine; KEY = ...' (docs/gan.md)"),
    **average_fields("gan", "10000 images", of="generator"),
    "generator.architecture": Field("dcgan", "the net", ("dcgan", "dense", "resnet", "r3gan", "vit")),
    "generator.latent_size": count(100, "Z: noise dimensions", LARGEST_WIDTH),
    "generator.latent": Field("normal", "distribution of the noise, of variance 1", ("normal", "uniform")),
    **_player_fields("generator"),
    "generator.conditioning": Field(
        "concatenation",
        "the label is beside the noise, or chooses BatchNorm's scales and biases",
        ("concatenation", "batch_norm"),
        when={"gan.conditional": (True,), "generator.architecture": ("dcgan", "resnet")},
    ),
    "discriminator.architecture": Field(
        "dcgan", "the net: one logit an image, or one a patch", ("dcgan", "patchgan", "dense", "resnet", "r3gan", "vit")
    ),
    **_player_fields("discriminator"),
    "discriminator.receptive_field": Field(
        0, "pixels one logit sees", (0, *PATCH_SIZES), when=_if("discriminator", "patchgan")
    ),
    "discriminator.norm": Field(
        "batch",
        "BatchNorm; none and biases instead; or, in a patchgan, instance norm and biases",
        ("batch", "instance", "none"),
        when=_if("discriminator", "dcgan", "patchgan"),
    ),
    "discriminator.pooling": Field(
        "sum", "of the last map: SNGAN sums, WGAN-GP averages", ("sum", "mean"), when=_if("discriminator", "resnet")
    ),
    "discriminator.pieces": dataclasses.replace(
        count(1, "linear maps whose largest a unit is (maxout); 1: LeakyReLU", 1000), when=_if("discriminator", "dense")
    ),
    "discriminator.input_dropout": Field(
        0.0, "share of the input left out in training", at_least=0, below=1, when=_if("discriminator", "dense")
    ),
    "discriminator.dropout": Field(
        0.0, "share of hidden units left out in training", at_least=0, below=1, when=_if("discriminator", "dense")
    ),
    "discriminator.conditioning": Field(
        "concatenation",
        "the label is beside the image, or a vector times the features (projection), or is predicted (classifier)",
        ("concatenation", "projection", "classifier"),
        when={"gan.conditional": (True,), "discriminator.architecture": ("dcgan", "dense", "resnet", "vit")},
    ),
    "discriminator.spectral_norm": Field(False, "divide each matrix by its largest singular value"),
    **optimizer_fields("generator", 2e-4),
    **optimizer_fields("discriminator", 2e-4),
}

TENSOR_KEYS = ("generator.width", "discriminator.width")

SAMPLING = {
    "label": Field("", "one class of a conditional run, by name or number; '' cycles through all"),
    "interpolate": Field(False, "interpolate between pairs of noise vectors, one pair per row"),
    "raw": Field(False, "use the generator itself, not its moving average"),
    "truncation": Field(0.0, "keep the noise's numbers within +- this; 0: all", at_least=0, at_most=100),
    "standing_statistics": Field(
        0,
        "normalise by the mean statistics of so many batches of fakes; 0: by the running ones",
        at_least=0,
        at_most=10_000,
    ),
}
# Keys whose numbers a schedule may change.
SCHEDULED = (
    *(
        f"{player}_optimizer.{name}"
        for player in ("generator", "discriminator")
        for name in ("learning_rate", "momentum", "beta2")
    ),
    *(f"gan.{kind}" for kind in PENALTIES),
    "gan.augment_probability",
    "gan.classifier_weight",
    "gan.fake_classifier_weight",
    "gan.generator_classifier_weight",
    "gan.ema_half_life",
)


def minibatches(config: Mapping[str, Any]) -> int:
    """Return how many minibatches a step has: one for each update that reads real images."""
    return config["gan"]["discriminator_steps"] + (config["gan"]["objective"] in RELATIVISTIC)


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs: what is generated, and its class if the game is conditional."""
    example = config["gan"]["example"]
    return {example: example, "label": "label"} if config["gan"]["conditional"] else {example: example}


def described(config: Mapping[str, Any], class_names: tuple[str, ...]) -> Mapping[str, Any]:
    """Describe a data set of the config that is not available; vectors have two numbers."""
    from gormley_vision.data.features import Feature, label_feature  # imports numpy

    data = config["data"]
    shape = (data["image_size"], data["image_size"], data["channels"])
    feature = (
        Feature("image", shape, "uint8") if config["gan"]["example"] == "image" else Feature("vector", (2,), "float32")
    )
    return {config["gan"]["example"]: feature, **label_feature(class_names)}


def smoke(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return values that shrink a run to seconds."""
    small: dict[str, Value] = {"log.samples": 16, "generator.latent_size": 8, "gan.schedules": ""}
    small["gan.discriminator_steps"] = min(2, config["gan"]["discriminator_steps"])  # each is compiled
    for player in ("generator", "discriminator"):
        architecture = config[player]["architecture"]
        small[f"{player}.width"] = {"r3gan": 16, "vit": 16}.get(architecture, 4)
        if architecture in ("r3gan", "vit", "dense"):
            small[f"{player}.depth"] = 1
        if architecture == "vit":
            small |= {f"{player}.heads": 2, f"{player}.patch_size": config["data"]["image_size"] // 4}
    return small


def is_on(config: Mapping[str, Any], key: str) -> bool:
    """Return whether a number is not 0 throughout."""
    return bool(config["gan"][key]) or f"gan.{key}" in schedules.parsed(config["gan"]["schedules"])


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that contradicts itself.

    Raises:
        UserError: names the keys, and what to type instead.
    """
    gan = config["gan"]
    schedules.check(config, "gan.schedules", FIELDS, SCHEDULED)
    if not any(is_on(config, kind) for kind in PENALTIES) and (gan["penalty_every"] > 1):
        raise UserError("gan.penalty_every needs a penalty, as in --config.gan.r1=1.0; or leave it at 1")
    if gan["difference"] and not (is_on(config, "r1") or is_on(config, "r2")):
        raise UserError(
            "gan.difference estimates r1 and r2, and neither is on: pass --config.gan.r1=1.0, or leave it at 0"
        )
    if gan["shared_fakes"] and gan["objective"] in RELATIVISTIC:
        raise UserError(
            f"gan.objective={gan['objective']} pairs the generator's fakes with other real images: "
            "--config.gan.shared_fakes=false"
        )
    if gan["generator_factor"] > 1 and (gan["shared_fakes"] or gan["objective"] in RELATIVISTIC):
        raise UserError(
            f"gan.generator_factor={gan['generator_factor']}: with gan.shared_fakes, and with {gan['objective']}, the "
            "generator has as many fakes as a minibatch has images: --config.gan.generator_factor=1"
        )
    _check_augmentation(config)
    for player in ("generator", "discriminator"):
        _check_architecture(config, player)
    _check_discriminator(config)


def _check_augmentation(config: Mapping[str, Any]) -> None:
    gan = config["gan"]
    try:
        names = {name for name, _ in policies.parsed(gan["augment"])}
    except ValueError as error:
        raise UserError(f"gan.augment={gan['augment']!r}: {error}") from None
    if not gan["augment"]:
        return
    if not names - ({"hue", "saturation"} if config["data"]["channels"] == 1 else set()):
        raise UserError(
            f"gan.augment={gan['augment']!r} changes nothing of these images: --config.gan.augment=diffaugment"
        )
    scheduled = "gan.augment_probability" in schedules.parsed(gan["schedules"])
    if gan["augment_target"] and (scheduled or gan["augment_probability"] != 1):
        raise UserError(
            "gan.augment_target steers the probability, and nothing reads gan.augment_probability: leave it out, or "
            "pass --config.gan.augment_target=0"
        )
    if not gan["augment_probability"] and not scheduled:
        raise UserError("gan.augment_probability=0 augments nothing: pass more, or --config.gan.augment=''")


def _check_architecture(config: Mapping[str, Any], player: str) -> None:
    section, size = config[player], config["data"]["image_size"]
    architecture = section["architecture"]
    if config["gan"]["example"] == "vector":
        if architecture != "dense":
            raise UserError(f"vectors need --config.{player}.architecture=dense, not {architecture}")
        return
    if architecture == "dcgan":
        halvings(size)
    if architecture in ("resnet", "r3gan") and (size < 16 or size & (size - 1)):
        near = min((16, 32, 64, 128, 256), key=lambda power: abs(power - size))
        raise UserError(f"{player}.architecture={architecture} needs a power of 2: --config.data.image_size={near}")
    if architecture == "r3gan" and section["width"] % 8:
        near = nearest_multiple(section["width"], 8)
        raise UserError(f"r3gan has groups of 16 of twice {player}.width channels: --config.{player}.width={near}")
    if architecture == "vit":
        _check_vit(player, section, size)


def _check_vit(player: str, section: Mapping[str, Any], size: int) -> None:
    if size % section["patch_size"]:
        fits = [p for p in range(1, size + 1) if size % p == 0]
        near = min(fits, key=lambda p: abs(p - section["patch_size"]))
        raise UserError(
            f"images of {size} pixels do not divide into {section['patch_size']}-pixel patches: "
            f"--config.{player}.patch_size={near}"
        )
    pairs = 2 * (1 if section["rope"] in ("none", "roformer", "llama") else 2)
    if section["width"] % (section["heads"] * pairs):
        near = nearest_multiple(section["width"], section["heads"] * pairs)
        raise UserError(
            f"{player}.width={section['width']} does not divide into {section['heads']} heads of a multiple of {pairs} "
            f"channels: --config.{player}.width={near}"
        )


def _check_discriminator(config: Mapping[str, Any]) -> None:
    section = config["discriminator"]
    if section["architecture"] == "patchgan" and not section["receptive_field"]:
        raise UserError("patchgan needs its receptive field: pass --config.discriminator.receptive_field=16")
    if section["architecture"] == "dcgan" and section["norm"] == "instance":
        raise UserError("a dcgan has no instance norm: --config.discriminator.norm=none, or architecture=patchgan")
    field = section["receptive_field"] if section["architecture"] == "patchgan" else 1
    if config["data"]["image_size"] < PATCH_SIZES[field]:
        raise UserError(
            f"discriminator.receptive_field={field} needs images of at least {PATCH_SIZES[field]} pixels: "
            "--config.discriminator.receptive_field=34"
        )
    if config["accumulate"] > 1 and (section["input_dropout"] or section["dropout"]):
        raise UserError(
            "accumulate: a discriminator with dropout cannot be computed in microbatches: --config.accumulate=1"
        )
