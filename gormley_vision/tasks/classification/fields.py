"""The keys of a classifier's config, their smoke values, and checks of their combinations. Loads no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gormley_vision.errors import UserError, nearest_multiple
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
    size = min(config["data"]["image_size"], 32)
    return {
        "data.image_size": size,
        "vit.width": 16,
        "vit.depth": 2,
        "vit.mlp": 32,
        "vit.heads": 2,
        "vit.registers": 0,
        "vit.representation": 0,
        "vit.patch_size": next(p for p in range(size // 4, 0, -1) if size % p == 0),
        "optimizer.warmup": "2 steps",
        "eval.every": "4 steps",
        "eval.split": config["eval"]["split"] and "test",
    }


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that contradicts itself.

    Raises:
        UserError: patches, heads or positions do not fit. Names values that do.
    """
    vit, size = config["vit"], config["data"]["image_size"]
    if size % vit["patch_size"]:
        fits = [p for p in range(1, size + 1) if size % p == 0]
        near = min(fits, key=lambda p: abs(p - vit["patch_size"]))
        near_size = nearest_multiple(size, vit["patch_size"])
        raise UserError(
            f"images of {size} pixels do not divide into {vit['patch_size']}-pixel patches: "
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
        raise UserError("dinov3's coordinates already interpolate: pass --config.vit.rope_scaling=none")
    if vit["position"] == "sincos2d" and (vit["width"] % 4 or vit["width"] < 8):
        near = max(8, nearest_multiple(vit["width"], 4))
        raise UserError(f"sincos2d needs a multiple of 4 channels, at least 8: --config.vit.width={near}")
    if vit["rope_scaling"] != "none" and not vit["trained_grid"]:
        raise UserError(
            f"vit.rope_scaling={vit['rope_scaling']} needs the grid in training, as in --config.vit.trained_grid=7"
        )
