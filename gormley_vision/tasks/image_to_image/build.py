"""Makes the task from a config."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gormley_vision.data.features import Description, Feature
from gormley_vision.errors import UserError
from gormley_vision.losses.adversarial import OBJECTIVES
from gormley_vision.losses.reconstruction import RECONSTRUCTION
from gormley_vision.models.patchgan import PatchDiscriminator
from gormley_vision.models.super_resolution import EDSR, ESPCN, FSRCNN
from gormley_vision.models.unet import UNet
from gormley_vision.tasks.feature_layers import layers_of
from gormley_vision.tasks.feature_nets import FeatureNet, open_weights
from gormley_vision.tasks.image_to_image import degradations
from gormley_vision.tasks.image_to_image.fields import FIELDS, SCHEDULED, is_on, multiple, side
from gormley_vision.tasks.image_to_image.task import PLAYERS, Translation
from gormley_vision.tasks.scalars import scalars_of


def make_image_to_image(config: Mapping[str, Any], description: Description) -> Translation:
    """Make the nets, their optimizers and the degradation.

    Raises:
        UserError: a pair's target is a label map, or the classes of one that is the input are not known.
    """
    options, data = config["translation"], config["data"]
    paired = options["degradation"] == "none"
    names = ("image", "target") if paired else ("image", "image")
    source, target = reversed(names) if options["reverse"] else names
    if description.features[target].kind != "image":
        raise UserError(
            "targets are label maps, and this task predicts images: --config.translation.reverse=true, or "
            "--config.data.target_kind=image"
        )
    classes = _classes(description.features[source])
    residual = config["generator"]["architecture"] == "unet" and config["generator"]["residual"]
    if classes and residual:
        raise UserError(
            "generator.residual adds to an image, and inputs are label maps: --config.generator.residual=false"
        )
    chosen = {name: options[name] for name in ("scale", "sigma", "quality")}
    degradation = degradations.of_classes(classes) if classes else degradations.make(options["degradation"], **chosen)
    dtype = jnp.dtype(config["compute_dtype"])
    channels = degradation.channels or description.features[target].shape[-1]
    images = {"epoch_images": description.length, "step_images": data["batch_size"]}
    return Translation(
        generator=_generator(config["generator"], channels, degradation.scale, dtype),
        discriminator=PatchDiscriminator(dtype=dtype, **config["discriminator"]) if options["adversarial"] else None,
        degradation=degradation,
        source=source,
        target=target,
        residual=residual,
        classes=classes,
        shapes={name: description.features[name].shape for name in dict.fromkeys((source, target))},
        patch=side(config),
        turns=options["turns"],
        flip=data["flip"],
        objective=OBJECTIVES[options["objective"]],
        conditional=options["conditional"],
        discriminator_weight=options["discriminator_weight"],
        penalties=tuple(name for name in ("r1", "r2") if is_on(config, name)),
        losses=tuple(name for name in RECONSTRUCTION if is_on(config, name)),
        features=_features(options, dtype),
        scalars=scalars_of(config, FIELDS, SCHEDULED, "translation.schedules", images),
        update_rules={player: config[f"{player}_optimizer"]["name"] for player in PLAYERS},
        multiple=multiple(config),
        reach=_reach(config["generator"], degradation.scale),
        batch_size=data["batch_size"],
        accumulate=config["accumulate"],
        ema_ramp=options["ema_ramp"],
        preview_count=config["log"]["samples"],
    )


def _classes(feature: Feature) -> int:
    """Return how many classes a label map has; 0 for an image."""
    if feature.kind != "label_map":
        return 0
    if not feature.class_names:
        raise UserError(
            "the classes of the label maps are not known: write their names, one a line, into classes.txt in the "
            "folder that data.targets names"
        )
    return len(feature.class_names)


def _features(options: Mapping[str, Any], dtype: Any) -> FeatureNet | None:
    """Return the network of the perceptual loss, unnormalised; None without one."""
    if not options["perceptual"]:
        return None
    layers = layers_of(options["feature_layers"])
    return FeatureNet(*open_weights(options["features"], layers, "translation.features"), layers, "max", False, dtype)


def _generator(section: Mapping[str, Any], channels: int, scale: int, dtype: Any) -> nn.Module:
    width, options = section["width"], {"dtype": dtype}
    norm, dropout = section["norm"], section["dropout"]
    if section["architecture"] == "unet":
        return UNet(
            channels, section["levels"], width, norm, dropout, section["convolution"], section["residual"], **options
        )
    if section["architecture"] == "edsr":
        blocks = section["blocks"]
        return EDSR(scale, width, blocks, section["residual_scale"], section["bicubic_skip"], **options)
    return {"espcn": ESPCN, "fsrcnn": FSRCNN}[section["architecture"]](scale=scale, **options)


def _reach(section: Mapping[str, Any], scale: int) -> int | None:
    """Return how many pixels of the input, beside its own place, a pixel of the output depends on; None: all."""
    # The sum of the convolutions' radii at the input's size, those after the enlargement, and bicubic's 2.
    return {"unet": None, "edsr": 2 * section["blocks"] + 5, "espcn": 4, "fsrcnn": 2 + 4 + -(-4 // scale)}[
        section["architecture"]
    ]
