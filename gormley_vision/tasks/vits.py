"""What tasks with a ViT check and shrink. Loads no jax."""

from collections.abc import Mapping
from typing import Any

from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.fields import Value


def small_vit(config: Mapping[str, Any]) -> dict[str, Value]:
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


def check_vit(config: Mapping[str, Any]) -> None:
    """Refuse patches, heads or positions that do not fit.

    Raises:
        UserError: names values that do.
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
