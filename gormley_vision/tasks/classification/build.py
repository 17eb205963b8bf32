"""Makes the task from a config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision import durations
from gormley_vision.data.features import Description
from gormley_vision.errors import UserError
from gormley_vision.models.vit import ViT
from gormley_vision.tasks.classification.task import Augmentation, Classification
from gormley_vision.tasks.optimizers import make_scheduled_optimizer


def make_classification(config: Mapping[str, Any], description: Description) -> Classification:
    """Make the classifier, its optimizer and its augmentation.

    Raises:
        UserError: fewer than two classes.
    """
    class_names = description.class_names
    classes = len(class_names)
    if classes < 2:
        raise UserError(
            f"classification needs labels of at least two classes, and the data set has {classes}: give each class a "
            "subfolder of its own, or an .npz file an array of labels"
        )
    data, options, optimizer = config["data"], dict(config["classification"]), dict(config["optimizer"])
    images = {"epoch_images": description.length, "step_images": data["batch_size"]}
    warmup = durations.to_steps(optimizer.pop("warmup"), **images)
    classifier = ViT(classes=classes, dtype=jnp.dtype(config["compute_dtype"]), **config["vit"])
    shape = (data["image_size"], data["image_size"], data["channels"])
    return Classification(
        classifier=classifier,
        optimizer=make_scheduled_optimizer(
            params=jax.eval_shape(classifier.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"],
            warmup_steps=warmup,
            total_steps=durations.to_steps(config["duration"], **images),
            only_head=options.pop("only_head"),
            **optimizer,
        ),
        image_shape=shape,
        batch_size=data["batch_size"],
        accumulate=config["accumulate"],
        ema_half_life=durations.to_images(options.pop("ema_half_life"), **images),
        ema_ramp=options.pop("ema_ramp"),
        position_resize=options.pop("position_resize"),
        fresh_head=options.pop("fresh_head"),
        class_names=class_names,
        augmentation=Augmentation(flip=data["flip"], **options),
    )
