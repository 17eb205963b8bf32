"""The keys of a language model's config, their smoke values, and checks of their combinations. Loads no jax."""

from collections.abc import Mapping
from typing import Any

from gormley_vision.errors import UserError
from gormley_vision.fields import (
    EVALUATION_FIELDS,
    OPTIMIZER_FIELDS,
    TRANSFORMER_FIELDS,
    Field,
    average_fields,
    count,
)
from gormley_vision.tasks.transformers import (
    check_transformer,
    small_transformer,
    windows_described,
    with_tokenizer_of_run,
)

FIELDS: dict[str, Field] = {
    **TRANSFORMER_FIELDS,
    "language_modeling.tied": Field(True, "the head is the transposed embedding, without a bias"),
    "language_modeling.preview": Field("", "what the texts that training shows begin with; '' is a line's end"),
    **average_fields("language_modeling", "0 examples", of="weights"),
    **OPTIMIZER_FIELDS,
    **EVALUATION_FIELDS,
}

described, smoke = windows_described, small_transformer

SAMPLING: dict[str, Field] = {
    "prompt": Field("", "what the text begins with; '' is a line's end"),
    "prompts": Field("", "a file with one prompt in each line, taken in turn"),
    "length": count(256, "tokens to generate at most", 10**6),
    "temperature": Field(1.0, "divides the logits; 0 always takes the most probable token", at_least=0, at_most=100),
    "top_k": count(0, "choose among the k most probable tokens; 0: all", 2**24, at_least=0),
    "top_p": Field(
        1.0, "choose among the most probable tokens that together have this probability", at_least=0, at_most=1
    ),
    "min_p": Field(
        0.0, "choose among tokens with at least this share of the largest probability", at_least=0, at_most=1
    ),
    "stop": Field("", "end before this text; '' never does"),
}

# Flags of scripts/evaluate.py: {flag: the key that it sets for the evaluation}.
EVALUATION = {"rope_scaling": "transformer.rope_scaling"}


def check(config: Mapping[str, Any]) -> None:
    """Refuse heads or positions that do not fit, and words, whose unknown ones would cost nothing.

    Raises:
        UserError: names values that do.
    """
    check_transformer(config)
    if config["data"]["tokenizer"] == "words":
        raise UserError(
            "words lose whatever is not among them, so no text has a probability: --config.data.tokenizer=bpe"
        )


def needs(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the features that an example needs."""
    del config
    return {"tokens": "tokens", "valid": "mask", "bytes": "vector"}


def evaluated(config: dict[str, Any], trained: Mapping[str, Any]) -> None:
    """Complete, in place, the `config` of an evaluation on other text, or with a longer context."""
    with_tokenizer_of_run(config)
    net, length = config["transformer"], trained["transformer"]["trained_context"] or trained["data"]["context"]
    net["trained_context"] = 0 if net["rope_scaling"] == "none" else length
