"""From a config to what it names: the task, the batches, the run; and back from a run's folder."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision import durations
from gormley_vision.config import validate
from gormley_vision.data.batches import Batches, open_batches
from gormley_vision.errors import UserError
from gormley_vision.losses.adversarial import GENERATOR_LOSSES
from gormley_vision.models.dcgan import Discriminator, Generator, halvings
from gormley_vision.models.patchgan import PatchDiscriminator
from gormley_vision.tasks.classification import Classification
from gormley_vision.tasks.gan import GAN, step_phases
from gormley_vision.tasks.players import make_optimizer
from gormley_vision.training.task import Task

Config = Mapping[str, Any]


def check(config: Config) -> None:
    """Refuse a config that contradicts itself, before data are read or anything compiles."""
    validate(config)
    halvings(config["data"]["image_size"])
    if config["task"] == "gan":
        _check_discriminator(**config["discriminator"])


def _check_discriminator(*, architecture: str, width: int, kernel_size: int, receptive_field: int) -> None:
    if architecture == "dcgan" and receptive_field:
        raise UserError(
            f"discriminator.receptive_field={receptive_field} is for patchgan: "
            "pass --config.discriminator.architecture=patchgan, or --config.discriminator.receptive_field=0"
        )
    if architecture == "patchgan" and not receptive_field:
        raise UserError("patchgan needs its receptive field: pass --config.discriminator.receptive_field=16")
    if architecture == "patchgan" and kernel_size != 4:
        raise UserError("patchgan has 4x4 kernels: pass --config.discriminator.kernel_size=4")


def make_batches(config: Config, progress=None) -> Batches:
    """Open the data set and its order for this process."""
    data = {key: value for key, value in config["data"].items() if key != "flip"}
    return open_batches(
        seed=config["seed"],
        minibatches=config["gan"]["discriminator_steps"] if config["task"] == "gan" else 1,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        progress=progress,
        **data,
    )


def make_task(config: Config, *, class_names: tuple[str, ...], epoch_images: int) -> Task:
    """The task of a config on a data set with these classes and so many images."""
    if config["task"] == "gan":
        return _make_gan(config, len(class_names), epoch_images)
    return _make_classification(config, len(class_names))


def _make_gan(config: Config, classes: int, epoch_images: int) -> GAN:
    data, gan, dtype = config["data"], config["gan"], jnp.dtype(config["compute_dtype"])
    if gan["conditional"] and not classes:
        raise UserError("gan.conditional needs labels, and the data set has none: pass --config.gan.conditional=false")
    conditions = classes if gan["conditional"] else 0
    discriminator: Any = dict(config["discriminator"])
    if discriminator.pop("architecture") == "dcgan":
        del discriminator["receptive_field"]
        make_discriminator: Any = Discriminator
    else:
        del discriminator["kernel_size"]
        make_discriminator = PatchDiscriminator
    size, channels = data["image_size"], data["channels"]
    return GAN(
        generator=Generator(image_size=size, channels=channels, classes=conditions, dtype=dtype, **config["generator"]),
        discriminator=make_discriminator(classes=conditions, dtype=dtype, **discriminator),
        generator_loss=GENERATOR_LOSSES[gan["generator_loss"]],
        generator_optimizer=make_optimizer(**config["generator_optimizer"]),
        discriminator_optimizer=make_optimizer(**config["discriminator_optimizer"]),
        latent_size=config["generator"]["latent_size"],
        image_shape=(size, size, channels),
        classes=conditions,
        batch_size=data["batch_size"],
        minibatches=gan["discriminator_steps"],
        phases=step_phases(
            gan["discriminator_steps"], shared_fakes=gan["shared_fakes"], simultaneous=gan["simultaneous"]
        ),
        ema_half_life=durations.to_images(
            gan["ema_half_life"],
            epoch_images=epoch_images,
            step_images=data["batch_size"] * gan["discriminator_steps"],
        ),
        ema_ramp=gan["ema_ramp"],
        flip=data["flip"],
        preview_count=config["log"]["samples"],
    )


def _make_classification(config: Config, classes: int) -> Classification:
    if classes < 2:
        raise UserError(f"classification needs labels, and the data set has {classes} classes")
    data = config["data"]
    return Classification(
        classifier=Discriminator(outputs=classes, dtype=jnp.dtype(config["compute_dtype"]), **config["classifier"]),
        optimizer=make_optimizer(**config["optimizer"]),
        image_shape=(data["image_size"], data["image_size"], data["channels"]),
        flip=data["flip"],
    )
