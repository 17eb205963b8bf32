"""The keys of a masked language model's config, their smoke values, and checks of their combinations. Loads no jax."""

from collections.abc import Mapping
from typing import Any

from gormley_vision.errors import UserError
from gormley_vision.fields import (
    EVALUATION_FIELDS,
    OPTIMIZER_FIELDS,
    TRANSFORMER_FIELDS,
    Field,
    average_fields,
)
from gormley_vision.tasks.transformers import check_transformer, small_transformer, windows_described

FIELDS: dict[str, Field] = {
    **TRANSFORMER_FIELDS,
    "masked_language_modeling.probability": Field(
        0.15, "of a token to be predicted (today's recipes: 0.3)", at_least=0.001, below=1
    ),
    "masked_language_modeling.mask_share": Field(
        0.8, "share of these that are read as [MASK] (today's recipes: 1)", at_least=0, at_most=1
    ),
    "masked_language_modeling.random_share": Field(
        0.1, "share of these that are read as a random token; the rest stays", at_least=0, at_most=1
    ),
    **average_fields("masked_language_modeling", "0 examples", of="weights"),
    **OPTIMIZER_FIELDS,
    **EVALUATION_FIELDS,
}

described, smoke = windows_described, small_transformer


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs."""
    del config
    return {"tokens": "tokens", "valid": "mask"}


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that contradicts itself.

    Raises:
        UserError: heads, positions or shares do not fit. Names values that do.
    """
    check_transformer(config)
    shares = config["masked_language_modeling"]
    if shares["mask_share"] + shares["random_share"] > 1 + 1e-9:
        raise UserError(
            f"mask_share={shares['mask_share']} and random_share={shares['random_share']} are more than all: "
            f"--config.masked_language_modeling.random_share={round(1 - shares['mask_share'], 6)}"
        )
