"""Makes the task from a config."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from gormley_vision import durations
from gormley_vision.augmentation import policies
from gormley_vision.data.features import Description
from gormley_vision.errors import UserError
from gormley_vision.losses import penalties
from gormley_vision.losses.adversarial import OBJECTIVES, Objective, discriminator_loss
from gormley_vision.models import dcgan, dense_gan, patchgan, r3gan, resnet_gan, vit_gan
from gormley_vision.tasks.gan.fields import FIELDS, PENALTIES, SCHEDULED, is_on, minibatches
from gormley_vision.tasks.gan.task import GAN, step_phases
from gormley_vision.tasks.scalars import scalars_of

GENERATORS: dict[str, Any] = {
    "dcgan": dcgan.Generator,
    "dense": dense_gan.Generator,
    "resnet": resnet_gan.Generator,
    "r3gan": r3gan.Generator,
    "vit": vit_gan.Generator,
}
DISCRIMINATORS: dict[str, Any] = {
    "dcgan": dcgan.Discriminator,
    "patchgan": patchgan.PatchDiscriminator,
    "dense": dense_gan.Discriminator,
    "resnet": resnet_gan.Discriminator,
    "r3gan": r3gan.Discriminator,
    "vit": vit_gan.Discriminator,
}
log = logging.getLogger(__name__)
OF_THE_TASK = ("architecture", "latent_size", "latent", "spectral_norm")  # the other keys of a player are its net's


def make_gan(config: Mapping[str, Any], description: Description) -> GAN:
    """Make the two players, their optimizers and the phases of a step.

    Raises:
        UserError: the config is conditional, and the data set has no labels.
    """
    class_names = description.class_names
    data, gan = config["data"], config["gan"]
    if gan["conditional"] and not class_names:
        raise UserError("gan.conditional needs labels, and the data set has none: pass --config.gan.conditional=false")
    conditions = class_names if gan["conditional"] else ()
    shape = description.features[gan["example"]].shape
    if gan["example"] == "vector" and len(shape) != 1:
        raise UserError(f"gan.example=vector: the data set's vectors have shape {list(shape)}: make them [n]")
    objective = _objective(gan)
    batch_norm = _net(config, "discriminator", ()).get("norm") == "batch"
    if batch_norm and any(is_on(config, kind) for kind in PENALTIES):
        log.warning(
            "discriminator.norm=batch: the gradient that a penalty measures is then of a whole batch, not of an image; "
            "WGAN-GP's paper leaves such layers out: --config.discriminator.norm=none"
        )
    images = {"epoch_images": description.length, "step_images": data["batch_size"] * minibatches(config)}
    return GAN(
        generator=GENERATORS[config["generator"]["architecture"]](shape=shape, **_net(config, "generator", conditions)),
        discriminator=DISCRIMINATORS[config["discriminator"]["architecture"]](
            **_net(config, "discriminator", conditions)
        ),
        objective=objective,
        penalties={kind: _penalty(kind, gan["difference"]) for kind in PENALTIES if is_on(config, kind)},
        penalty_every=gan["penalty_every"],
        scalars=scalars_of(config, FIELDS, SCHEDULED, "gan.schedules", images),
        update_rules={player: config[f"{player}_optimizer"]["name"] for player in ("generator", "discriminator")},
        latent_size=config["generator"]["latent_size"],
        latent=config["generator"]["latent"],
        example=gan["example"],
        example_shape=shape,
        extent=config["log"]["extent"],
        class_names=conditions,
        batch_size=data["batch_size"],
        minibatches=minibatches(config),
        generator_factor=gan["generator_factor"],
        accumulate=config["accumulate"],
        phases=step_phases(
            gan["discriminator_steps"],
            shared_fakes=gan["shared_fakes"],
            simultaneous=gan["simultaneous"],
            relativistic=objective.relativistic,
        ),
        ema_ramp=gan["ema_ramp"],
        flip=data["flip"],
        dequantize=gan["dequantize"],
        augment=policies.parsed(gan["augment"]),
        augment_target=gan["augment_target"] if gan["augment"] else 0.0,
        augment_speed=durations.to_images(gan["augment_speed"], **images),
        spectral=config["discriminator"]["spectral_norm"],
        clip_weights=gan["clip_weights"],
        preview_count=config["log"]["samples"],
    )


def _objective(gan: Mapping[str, Any]) -> Objective:
    objective = OBJECTIVES[gan["objective"]]
    if not (gan["label_smoothing"] and objective.probabilities):
        return objective
    return objective._replace(discriminator=partial(discriminator_loss, smoothing=gan["label_smoothing"]))


def _penalty(kind: str, difference: float) -> Any:
    if kind in penalties.SQUARED:
        return partial(penalties.SQUARED[kind], difference=difference)
    return penalties.PENALTIES[kind]


def _net(config: Mapping[str, Any], player: str, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of a player's net: the keys of its section that its architecture reads."""
    section = config[player]

    def reads(name: str) -> bool:
        architectures = FIELDS[f"{player}.{name}"].when.get(f"{player}.architecture", ())
        return name not in OF_THE_TASK and (not architectures or section["architecture"] in architectures)

    arguments = {name: value for name, value in section.items() if reads(name)}
    return arguments | {"classes": len(class_names), "dtype": jnp.dtype(config["compute_dtype"])}
