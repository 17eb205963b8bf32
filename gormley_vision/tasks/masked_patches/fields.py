"""The keys of a config of masked patches, their smoke values, and checks of their combinations. Loads no jax."""

import math
from collections.abc import Mapping
from typing import Any

from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.fields import (
    EVALUATION_FIELDS,
    IMAGE_FIELDS,
    LARGEST_WIDTH,
    OPTIMIZER_FIELDS,
    VIT_FIELDS,
    Field,
    Value,
    average_fields,
    count,
)
from gormley_vision.tasks.vits import check_vit, small_vit

_MAE = {"masked_patches.method": ("mae",)}

FIELDS: dict[str, Field] = {
    **IMAGE_FIELDS,
    **{key: field for key, field in VIT_FIELDS.items() if key not in ("vit.representation", "vit.head_bias")},
    "masked_patches.method": Field(
        "simmim", "mask tokens and a linear head, or MAE's encoder and decoder", ("simmim", "mae")
    ),
    "masked_patches.ratio": Field(
        0.6, "share of patches that are hidden (SimMIM 0.6, MAE 0.75)", at_least=0.01, at_most=0.99
    ),
    "masked_patches.normalised": Field(False, "predict each patch with mean 0 and variance 1, as MAE does"),
    "masked_patches.decoder_width": Field(
        64, "channels of MAE's decoder", at_least=8, at_most=LARGEST_WIDTH, when=_MAE
    ),
    "masked_patches.decoder_depth": Field(2, "layers of MAE's decoder", at_least=1, at_most=1000, when=_MAE),
    "masked_patches.decoder_heads": Field(
        4, "heads of MAE's decoder; divides its width", at_least=1, at_most=1000, when=_MAE
    ),
    "masked_patches.shift": count(0, "move each image by up to so many pixels", 8192, at_least=0),
    **average_fields("masked_patches", "0 images", of="weights"),
    **OPTIMIZER_FIELDS,
    **EVALUATION_FIELDS,
}

TENSOR_KEYS = ("vit.heads", "vit.mlp")


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs: an image."""
    del config
    return {"image": "image"}


def smoke(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return values that shrink a run to seconds: few patches of small images."""
    decoder = {"masked_patches.decoder_width": 16, "masked_patches.decoder_heads": 2, "masked_patches.decoder_depth": 1}
    small = {key: value for key, value in small_vit(config).items() if key in FIELDS}
    return small | (decoder if config["masked_patches"]["method"] == "mae" else {})


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that contradicts itself.

    Raises:
        UserError: patches, heads or shares do not fit. Names values that do.
    """
    check_vit(config)
    options, patches = config["masked_patches"], (config["data"]["image_size"] // config["vit"]["patch_size"]) ** 2
    if not 0 < hidden_count(options["ratio"], patches) < patches:
        raise UserError(
            f"masked_patches.ratio={options['ratio']} of {patches} patches hides none or all of them: "
            "--config.masked_patches.ratio=0.6"
        )
    if options["method"] == "mae":
        width, heads = options["decoder_width"], options["decoder_heads"]
        if width % heads or width % 4:
            near = nearest_multiple(width, math.lcm(4, heads))
            raise UserError(
                f"a decoder of {width} channels needs a multiple of 4 and of its {heads} heads: "
                f"--config.masked_patches.decoder_width={near}"
            )


def hidden_count(ratio: float, patches: int) -> int:
    """Return how many patches are hidden."""
    return round(ratio * patches)
