"""The keys of a GAN's config, their smoke values, and checks of their combinations. Loads no jax."""

from collections.abc import Mapping
from typing import Any

from gormley_vision.errors import UserError
from gormley_vision.fields import IMAGE_FIELDS, LARGE, LARGEST_WIDTH, Field, Value, average_fields, count
from gormley_vision.models.sizes import halvings

PENALTIES = ("r1", "r2", "gradient_penalty", "dragan")
RELATIVISTIC = ("relativistic_paired", "relativistic_average")
OBJECTIVES = ("non_saturating", "saturating", "hinge", "least_squares", "wasserstein", *RELATIVISTIC)


def _player_fields(player: str, learning_rate: float) -> dict[str, Field]:
    return {
        f"{player}.name": Field("adam", "update rule", ("adam", "momentum_sgd")),
        f"{player}.learning_rate": Field(learning_rate, "step size; 0 freezes the player", at_least=0, at_most=LARGE),
        f"{player}.momentum": Field(0.5, "Adam's beta1, or the momentum of SGD", at_least=0, below=1),
        f"{player}.beta2": Field(
            0.999, "decay of Adam's second moment", at_least=0, below=1, when={f"{player}.name": ("adam",)}
        ),
    }


def _weight(of: str) -> Field:
    return Field(0.0, f"weight of {of}; 0 for none", at_least=0, at_most=LARGE)


FIELDS: dict[str, Field] = {
    "log.samples": count(64, "images in a sample grid", 10**4, may_change=True),
    **IMAGE_FIELDS,
    "gan.conditional": Field(False, "the class label is an input of both players"),
    "gan.objective": Field("non_saturating", "what the players descend (losses/adversarial.py)", OBJECTIVES),
    "gan.label_smoothing": Field(
        0.0,
        "real images' target is less than 1 by so much",
        at_least=0,
        below=1,
        when={"gan.objective": ("non_saturating", "saturating")},
    ),
    "gan.r1": _weight("half the squared gradient norm of D at real images"),
    "gan.r2": _weight("the same at fake images"),
    "gan.gradient_penalty": _weight("WGAN-GP's, between real and fake images (10 in the paper)"),
    "gan.dragan": _weight("DRAGAN's, around real images (10 in the paper)"),
    "gan.penalty_every": Field(
        1,
        "steps from one turn of the penalties to the next, with that much more weight",
        at_least=1,
        at_most=10_000,
    ),
    "gan.discriminator_steps": count(1, "k: discriminator updates, each on a fresh minibatch, per step", 1000),
    "gan.shared_fakes": Field(False, "the generator update reuses the last discriminator update's noise"),
    "gan.simultaneous": Field(False, "the generator plays against the discriminator from before its last update"),
    **average_fields("gan", "10000 images", of="generator"),
    "generator.latent_size": count(100, "Z: noise dimensions", LARGEST_WIDTH),
    "generator.width": count(
        64, "channels of the last hidden layer; doubles with each halving of the size", LARGEST_WIDTH
    ),
    "generator.kernel_size": Field(4, "4 as in most implementations, 5 as in the original", (4, 5)),
    "discriminator.architecture": Field("dcgan", "one logit an image, or one a patch", ("dcgan", "patchgan")),
    "discriminator.width": count(
        64, "channels of the first layer; doubles with each halving of the size", LARGEST_WIDTH
    ),
    "discriminator.kernel_size": Field(4, "4 or 5", (4, 5), when={"discriminator.architecture": ("dcgan",)}),
    "discriminator.receptive_field": Field(
        0, "pixels one logit sees", (0, 1, 16, 34, 70), when={"discriminator.architecture": ("patchgan",)}
    ),
    **_player_fields("generator_optimizer", 2e-4),
    **_player_fields("discriminator_optimizer", 2e-4),
}

TENSOR_KEYS = ("generator.width", "discriminator.width")

SAMPLING = {
    "label": Field("", "one class of a conditional run, by name or number; '' cycles through all"),
    "interpolate": Field(False, "interpolate between pairs of noise vectors, one pair per row"),
    "raw": Field(False, "use the generator itself, not its moving average"),
}


def minibatches(config: Mapping[str, Any]) -> int:
    """Return how many minibatches a step has: one for each update that reads real images."""
    return config["gan"]["discriminator_steps"] + (config["gan"]["objective"] in RELATIVISTIC)


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs: an image, and its class if the game is conditional."""
    return {"image": "image", "label": "label"} if config["gan"]["conditional"] else {"image": "image"}


def smoke(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return values that shrink a run to seconds."""
    del config
    return {
        "log.samples": 16,
        "generator.width": 4,
        "generator.latent_size": 8,
        "discriminator.width": 4,
    }


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that contradicts itself.

    Raises:
        UserError: DCGAN cannot generate the image size, a PatchGAN lacks its receptive field, an interval has no
            penalty, or a relativistic generator, which has real images of its own, shares the discriminator's fakes.
    """
    if config["gan"]["penalty_every"] > 1 and not any(config["gan"][kind] for kind in PENALTIES):
        raise UserError("gan.penalty_every needs a penalty, as in --config.gan.r1=1.0; or leave it at 1")
    if config["gan"]["shared_fakes"] and config["gan"]["objective"] in RELATIVISTIC:
        raise UserError(
            f"gan.objective={config['gan']['objective']} pairs the generator's fakes with other real images: "
            "--config.gan.shared_fakes=false"
        )
    halvings(config["data"]["image_size"])
    discriminator = config["discriminator"]
    if discriminator["architecture"] == "patchgan" and not discriminator["receptive_field"]:
        raise UserError("patchgan needs its receptive field: pass --config.discriminator.receptive_field=16")
