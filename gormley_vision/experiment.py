"""From a config to what it names: the task, the batches, the run; and back from a run's folder."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from gormley_vision import durations
from gormley_vision.config import fields_of, flatten, step_images, validate
from gormley_vision.data.batches import Batches, open_batches
from gormley_vision.errors import UserError, listed
from gormley_vision.losses.adversarial import GENERATOR_LOSSES
from gormley_vision.mesh_rules import parse_rules
from gormley_vision.models.dcgan import Discriminator, Generator, halvings
from gormley_vision.models.patchgan import PatchDiscriminator
from gormley_vision.models.vit import ViT
from gormley_vision.tasks.classification import Augmentation, Classification
from gormley_vision.tasks.gan import GAN, step_phases
from gormley_vision.tasks.optimizers import make_classifier_optimizer, make_optimizer
from gormley_vision.training import hosts
from gormley_vision.training.evaluation import Evaluation
from gormley_vision.training.sharding import Shardings, make_mesh, nearest_multiple
from gormley_vision.training.task import Task

log = logging.getLogger(__name__)
Config = Mapping[str, Any]


def check(config: Config) -> None:
    """Refuse a config that contradicts itself, before data are read or anything compiles."""
    validate(config)
    parse_rules(config["mesh"]["rules"])
    batch, accumulate = config["data"]["batch_size"], config["accumulate"]
    if batch % accumulate:
        raise UserError(
            f"data.batch_size={batch} does not divide into accumulate={accumulate} pieces: "
            f"--config.data.batch_size={nearest_multiple(batch, accumulate)}"
        )
    if config["mesh"]["rules"] == fields_of(config)["mesh.rules"].default:
        _check_tensor(config)
    if config["task"] == "classification":
        _check_vit(config)
    else:
        halvings(config["data"]["image_size"])
        discriminator = config["discriminator"]
        if discriminator["architecture"] == "patchgan" and not discriminator["receptive_field"]:
            raise UserError("patchgan needs its receptive field: pass --config.discriminator.receptive_field=16")


def _check_tensor(config: Config) -> None:
    """The default rules split these; what other rules split is checked when the state's shapes are known."""
    split = {"gan": ("generator.width", "discriminator.width"), "classification": ("vit.heads", "vit.mlp")}
    flat, parts = flatten(config), config["mesh"]["tensor"]
    for key in split[config["task"]]:
        size = int(flat[key])
        if size % parts:
            raise UserError(
                f"{key}={size} does not divide over mesh.tensor={parts}: --config.{key}={nearest_multiple(size, parts)}"
            )


def _check_vit(config: Config) -> None:
    vit, size = config["vit"], config["data"]["image_size"]
    if size % vit["patch_size"]:
        fits = [p for p in range(1, size + 1) if size % p == 0]
        near = min(fits, key=lambda p: abs(p - vit["patch_size"]))
        near_size = nearest_multiple(size, vit["patch_size"])
        raise UserError(
            f"images of {size} pixels are no whole number of {vit['patch_size']}-pixel patches: "
            f"pass --config.vit.patch_size={near}, or --config.data.image_size={near_size}"
        )
    if vit["width"] % vit["heads"]:
        near = nearest_multiple(vit["width"], vit["heads"])
        raise UserError(
            f"vit.width={vit['width']} does not divide into {vit['heads']} heads: --config.vit.width={near}"
        )
    pairs = 1 if vit["rope"] in ("none", "roformer", "llama") else 2  # for each axis of an image
    if vit["rope"] != "none" and vit["width"] // vit["heads"] % (2 * pairs):
        near = nearest_multiple(vit["width"], 2 * pairs * vit["heads"])
        raise UserError(
            f"vit.rope={vit['rope']} needs heads of a multiple of {2 * pairs} channels, not "
            f"{vit['width'] // vit['heads']}: --config.vit.width={near}"
        )
    if vit["rope"] == "dinov3" and vit["rope_scaling"] == "ntk":
        raise UserError("dinov3's coordinates interpolate by themselves: pass --config.vit.rope_scaling=none")
    if vit["position"] == "sincos2d" and (vit["width"] % 4 or vit["width"] < 8):
        near = max(8, nearest_multiple(vit["width"], 4))
        raise UserError(f"sincos2d needs a multiple of 4 channels, at least 8: --config.vit.width={near}")
    if vit["rope_scaling"] != "none" and not vit["trained_grid"]:
        raise UserError(
            f"vit.rope_scaling={vit['rope_scaling']} needs the grid in training, as in --config.vit.trained_grid=7"
        )


def make_batches(config: Config, progress=None, split: str = "", class_names: tuple[str, ...] = ()) -> Batches:
    """Open the data set and its order for this process.

    `split` other than the config's, if given, and labels of other `class_names`, matched by name.
    """
    data = {key: value for key, value in config["data"].items() if key != "flip"}
    data["split"] = split or data["split"]
    return open_batches(
        seed=config["seed"],
        minibatches=config["gan"]["discriminator_steps"] if config["task"] == "gan" else 1,
        columns=None if hosts.alone() else Shardings(mesh_of(config), ()).columns(data["batch_size"]),
        class_names=class_names,
        progress=progress,
        **data,
    )


def mesh_of(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The config's mesh, of all devices or of these."""
    return make_mesh(config["mesh"], config["data"]["batch_size"], config["accumulate"], devices)


def make_task(config: Config, *, class_names: tuple[str, ...], epoch_images: int) -> Task:
    """The task of a config on a data set with these classes and so many images."""
    if config["task"] == "gan":
        return _make_gan(config, class_names, epoch_images)
    return _make_classification(config, class_names, epoch_images)


def make_evaluation(config: Config, task: Task, training: Batches, progress=None) -> Evaluation | None:
    """What evaluates the task in the loop, where the config names a split for it."""
    if not isinstance(task, Classification) or not config["eval"]["split"]:
        return None
    batches = make_batches(config, progress, split=config["eval"]["split"], class_names=training.class_names)
    _tell_of_unseen_classes(config, training, batches)
    every = durations.to_steps(config["eval"]["every"], epoch_images=training.length, step_images=training.batch_size)
    return Evaluation(task, batches, every)


def _tell_of_unseen_classes(config: Config, training: Batches, evaluated: Batches) -> None:
    """A class that training never shows makes the accuracy low for a reason that no curve tells."""
    seen, asked = training.classes_present(), evaluated.classes_present()
    if seen is None or asked is None or not (unseen := sorted(asked - seen)):
        return
    log.warning(
        "data.split=%s has no image of %d of the classes in eval.split=%s: %s; they cannot be learned",
        config["data"]["split"],
        len(unseen),
        config["eval"]["split"],
        listed([training.class_names[label] for label in unseen]),
    )


def _make_gan(config: Config, class_names: tuple[str, ...], epoch_images: int) -> GAN:
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
    size, channels = data["image_size"], data["channels"]
    return GAN(
        generator=Generator(
            image_size=size, channels=channels, classes=len(conditions), dtype=dtype, **config["generator"]
        ),
        discriminator=make_discriminator(classes=len(conditions), dtype=dtype, **discriminator),
        generator_loss=GENERATOR_LOSSES[gan["generator_loss"]],
        generator_optimizer=make_optimizer(**config["generator_optimizer"]),
        discriminator_optimizer=make_optimizer(**config["discriminator_optimizer"]),
        latent_size=config["generator"]["latent_size"],
        image_shape=(size, size, channels),
        class_names=conditions,
        batch_size=data["batch_size"],
        minibatches=gan["discriminator_steps"],
        accumulate=config["accumulate"],
        phases=step_phases(
            gan["discriminator_steps"], shared_fakes=gan["shared_fakes"], simultaneous=gan["simultaneous"]
        ),
        ema_half_life=durations.to_images(
            gan["ema_half_life"],
            epoch_images=epoch_images,
            step_images=step_images(config),
        ),
        ema_ramp=gan["ema_ramp"],
        flip=data["flip"],
        preview_count=config["log"]["samples"],
    )


def _make_classification(config: Config, class_names: tuple[str, ...], epoch_images: int) -> Classification:
    classes = len(class_names)
    if classes < 2:
        raise UserError(
            f"classification needs labels of two classes or more, and the data set has {classes}: give each class a "
            "subfolder of its own, or an .npz file an array of labels"
        )
    data, options, optimizer = config["data"], dict(config["classification"]), dict(config["optimizer"])
    images = {"epoch_images": epoch_images, "step_images": data["batch_size"]}
    warmup = durations.to_steps(optimizer.pop("warmup"), **images)
    classifier = ViT(classes=classes, dtype=jnp.dtype(config["compute_dtype"]), **config["vit"])
    shape = (data["image_size"], data["image_size"], data["channels"])
    return Classification(
        classifier=classifier,
        optimizer=make_classifier_optimizer(
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
