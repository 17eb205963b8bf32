"""The keys of a text classifier's config, their smoke values, and checks of their combinations. Loads no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gormley_vision.fields import (
    EVALUATION_FIELDS,
    LARGEST_WIDTH,
    ON,
    OPTIMIZER_FIELDS,
    TRANSFORMER_FIELDS,
    Field,
    Value,
    average_fields,
    count,
)
from gormley_vision.tasks.transformers import (
    check_transformer,
    small_transformer,
    tokenizer_described,
    with_tokenizer_of_run,
)

_TRANSFORMER, _CNN = ({"text_classification.network": (name,)} for name in ("transformer", "cnn"))

FIELDS: dict[str, Field] = {
    "text_classification.network": Field(
        "transformer", "an encoder that reads [CLS], or convolutions over words", ("transformer", "cnn")
    ),
    **{key: dataclasses.replace(x, when={**_TRANSFORMER, **x.when}) for key, x in TRANSFORMER_FIELDS.items()},
    "cnn.width": dataclasses.replace(count(300, "channels of a word's embedding", LARGEST_WIDTH), when=_CNN),
    "cnn.maps": dataclasses.replace(count(100, "channels for each of windows of 3, 4 and 5", LARGEST_WIDTH), when=_CNN),
    "cnn.dropout": Field(0.5, "probability, before the head", at_least=0, below=1, when=_CNN),
    "text_classification.label_smoothing": Field(
        0.0, "share of a target spread over all classes", at_least=0, at_most=1
    ),
    "text_classification.word_dropout": Field(
        0.0, "probability that a token is read as [MASK] in training", at_least=0, below=1
    ),
    "text_classification.only_head": Field(
        False, "train only the head: a linear probe of init_from", when={"init_from": ON}
    ),
    **average_fields("text_classification", "0 examples", of="weights"),
    **OPTIMIZER_FIELDS,
    "optimizer.layer_decay": dataclasses.replace(
        OPTIMIZER_FIELDS["optimizer.layer_decay"], when={"text_classification.only_head": (False,)}
    ),
    **EVALUATION_FIELDS,
}

EVALUATION: dict[str, str] = {}


def check(config: Mapping[str, Any]) -> None:
    """Refuse heads or positions that do not fit.

    Raises:
        UserError: names values that do.
    """
    if config["text_classification"]["network"] == "transformer":
        check_transformer(config)


def evaluated(config: dict[str, Any], trained: Mapping[str, Any]) -> None:
    """Complete, in place, the `config` of an evaluation on other texts."""
    del trained
    with_tokenizer_of_run(config)


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs: a text and its class."""
    del config
    return {"tokens": "tokens", "valid": "mask", "label": "label"}


def described(config: Mapping[str, Any], class_names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the features of texts that are not available."""
    from gormley_vision.data.table_source import text_features  # imports numpy

    return text_features(config["data"]["context"], *tokenizer_described(config["data"]), class_names)


def smoke(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return values that shrink a run to seconds."""
    return small_transformer(config) | {"data.source": "python_paragraphs", "cnn.width": 8, "cnn.maps": 4}
