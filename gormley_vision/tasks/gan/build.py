"""Makes the task from a config."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from gormley_vision import durations
from gormley_vision.data.features import Description
from gormley_vision.errors import UserError
from gormley_vision.losses.adversarial import OBJECTIVES, discriminator_loss
from gormley_vision.losses.penalties import Penalty
from gormley_vision.models.dcgan import Discriminator, Generator
from gormley_vision.models.patchgan import PatchDiscriminator
from gormley_vision.tasks.gan.fields import PENALTIES, minibatches
from gormley_vision.tasks.gan.task import GAN, step_phases
from gormley_vision.tasks.optimizers import make_optimizer


def make_gan(config: Mapping[str, Any], description: Description) -> GAN:
    """Make the two players, their optimizers and the phases of a step.

    Raises:
        UserError: the config is conditional, and the data set has no labels.
    """
    class_names = description.class_names
    data, gan, dtype = config["data"], config["gan"], jnp.dtype(config["compute_dtype"])
    if gan["conditional"] and not class_names:
        raise UserError("gan.conditional needs labels, and the data set has none: pass --config.gan.conditional=false")
    conditions = class_names if gan["conditional"] else ()
    discriminator: Any = dict(config["discriminator"])
    if discriminator.pop("architecture") == "dcgan":
        del discriminator["receptive_field"]
        make_discriminator: Any = Discriminator
    else:
        del discriminator["kernel_size"]
        make_discriminator = PatchDiscriminator
    objective = OBJECTIVES[gan["objective"]]
    if gan["label_smoothing"] and objective.probabilities:
        smoothed = partial(discriminator_loss, smoothing=gan["label_smoothing"])
        objective = objective._replace(discriminator=smoothed)
    size, channels = data["image_size"], data["channels"]
    return GAN(
        generator=Generator(
            image_size=size, channels=channels, classes=len(conditions), dtype=dtype, **config["generator"]
        ),
        discriminator=make_discriminator(classes=len(conditions), dtype=dtype, **discriminator),
        objective=objective,
        penalties=tuple(Penalty(kind, gan[kind], gan["penalty_every"]) for kind in PENALTIES if gan[kind]),
        generator_optimizer=make_optimizer(**config["generator_optimizer"]),
        discriminator_optimizer=make_optimizer(**config["discriminator_optimizer"]),
        latent_size=config["generator"]["latent_size"],
        image_shape=(size, size, channels),
        class_names=conditions,
        batch_size=data["batch_size"],
        minibatches=minibatches(config),
        accumulate=config["accumulate"],
        phases=step_phases(
            gan["discriminator_steps"],
            shared_fakes=gan["shared_fakes"],
            simultaneous=gan["simultaneous"],
            relativistic=objective.relativistic,
        ),
        ema_half_life=durations.to_images(
            gan["ema_half_life"],
            epoch_images=description.length,
            step_images=data["batch_size"] * minibatches(config),
        ),
        ema_ramp=gan["ema_ramp"],
        flip=data["flip"],
        preview_count=config["log"]["samples"],
    )
