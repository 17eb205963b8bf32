"""The keys of a classifier's config, their smoke values, and checks of their combinations. Loads no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gormley_vision.fields import (
    EVALUATION_FIELDS,
    IMAGE_FIELDS,
    ON,
    OPTIMIZER_FIELDS,
    VIT_FIELDS,
    Field,
    Value,
    average_fields,
    count,
)
from gormley_vision.tasks.vits import check_vit, small_vit

FIELDS: dict[str, Field] = {
    **IMAGE_FIELDS,
    **VIT_FIELDS,
    "classification.label_smoothing": Field(0.0, "share of a target spread over all classes", at_least=0, at_most=1),
    "classification.shift": count(0, "move each image by up to so many pixels", 8192, at_least=0),
    "classification.crop_min_area": Field(
        0.0, "cut out at least this share of the area; 0 for none", at_least=0, at_most=1
    ),
    "classification.randaugment_operations": count(0, "RandAugment operations an image; 0 for none", 100, at_least=0),
    "classification.randaugment_magnitude": Field(
        9.0,
        "strength of RandAugment, 0 to 10",
        at_least=0,
        at_most=10,
        when={"classification.randaugment_operations": ON},
    ),
    "classification.mixup": Field(0.0, "alpha of mixup; 0 for none", at_least=0, at_most=100),
    "classification.cutmix": Field(
        0.0, "alpha of CutMix; 0 for none; with mixup, either by a coin", at_least=0, at_most=100
    ),
    "classification.fresh_head": Field(
        False, "replace init_from's head by zeros and load its average: fine-tuning", when={"init_from": ON}
    ),
    "classification.only_head": Field(
        False, "train only the head: a linear probe of init_from", when={"init_from": ON}
    ),
    "classification.position_resize": Field(
        "google",
        "convention by which init_from's learned positions are resized",
        ("google", "timm", "huggingface"),
        when={"init_from": ON, "vit.position": ("learned",)},
    ),
    **average_fields("classification", "0 images", of="weights"),
    **OPTIMIZER_FIELDS,
    "optimizer.layer_decay": dataclasses.replace(
        OPTIMIZER_FIELDS["optimizer.layer_decay"], when={"classification.only_head": (False,)}
    ),
    **EVALUATION_FIELDS,
}

TENSOR_KEYS = ("vit.heads", "vit.mlp")

# Flags of scripts/evaluate.py: {flag: the key that it sets for the evaluation}.
EVALUATION = {"rope_scaling": "vit.rope_scaling", "position_resize": "classification.position_resize"}


def evaluated(config: dict[str, Any], trained: Mapping[str, Any]) -> None:
    """Complete, in place, the `config` of an evaluation at another resolution than that of the config `trained`."""
    config["classification"]["fresh_head"] = False  # evaluate the run's own
    vit, grid = config["vit"], trained["data"]["image_size"] // trained["vit"]["patch_size"]
    vit["trained_grid"] = 0 if vit["rope_scaling"] == "none" else trained["vit"]["trained_grid"] or grid


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs: an image and its class."""
    del config
    return {"image": "image", "label": "label"}


def smoke(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return values that shrink a run to seconds: few patches of small images."""
    return small_vit(config)


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that contradicts itself.

    Raises:
        UserError: patches, heads or positions do not fit. Names values that do.
    """
    check_vit(config)
