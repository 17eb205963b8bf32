"""What tasks with a transformer on text check, shrink and hand over. Loads no jax."""

from collections.abc import Mapping
from typing import Any

from gormley_vision.errors import UserError, nearest_multiple
from gormley_vision.fields import RUN_FIELDS, Value
from gormley_vision.files import user_path

# Keys of sizes that the default mesh.rules split over mesh.tensor.
TENSOR_KEYS = ("transformer.heads", "transformer.mlp")


def check_transformer(config: Mapping[str, Any]) -> None:
    """Refuse heads or positions that do not fit.

    Raises:
        UserError: names values that do.
    """
    net = config["transformer"]
    width, heads, kv_heads = net["width"], net["heads"], net["kv_heads"]
    if width % heads:
        raise UserError(
            f"transformer.width={width} does not divide into {heads} heads: "
            f"--config.transformer.width={nearest_multiple(width, heads)}"
        )
    if kv_heads and heads % kv_heads:
        fits = [n for n in range(1, heads + 1) if heads % n == 0]
        near = min(fits, key=lambda n: abs(n - kv_heads))
        raise UserError(
            f"transformer.heads={heads} do not divide into kv_heads={kv_heads} groups: "
            f"--config.transformer.kv_heads={near}"
        )
    if net["rope"] != "none" and width // heads % 2:
        raise UserError(
            f"rotated heads need an even number of channels, not {width // heads}: "
            f"--config.transformer.width={nearest_multiple(width, 2 * heads)}"
        )
    if net["rope_scaling"] != "none" and not net["trained_context"]:
        raise UserError(
            f"transformer.rope_scaling={net['rope_scaling']} needs the context in training, as in "
            "--config.transformer.trained_context=256"
        )


def tokenizer_described(data: Mapping[str, Any]) -> tuple[int, str]:
    """Return size and saved form of the tokenizer of a text that is not available; characters are assumed to be 128."""
    from gormley_vision.data import tokenizers  # imports numpy

    known = {"bytes": 256, "characters": 128, "words": data["vocabulary"], "bpe": data["vocabulary"]}
    if data["tokenizer"] in known:
        return known[data["tokenizer"]], ""
    tokenizer = tokenizers.from_file(user_path(data["tokenizer"]))
    return tokenizer.size, tokenizer.saved()


def windows_described(config: Mapping[str, Any], class_names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the features of windows of a text that is not available."""
    from gormley_vision.data.text_source import window_features  # imports numpy

    del class_names
    data = config["data"]
    return window_features(data["context"], data["packing"], *tokenizer_described(data))


def with_tokenizer_of_run(config: dict[str, Any]) -> None:
    """Set, in place, the tokenizer of a config that evaluates the run `init_from`: what that run has in its folder."""
    config["data"]["tokenizer"] = str(user_path(config["init_from"]) / "tokenizer.json")
    config["data"]["vocabulary"] = RUN_FIELDS["data.vocabulary"].default


def small_transformer(config: Mapping[str, Any]) -> dict[str, Value]:
    """Return values that shrink a run to seconds, on text that every machine has."""
    net = config["transformer"]
    heads = 2 if net["kv_heads"] in (0, net["heads"]) else 4
    return {
        "data.source": "python_topics",
        "data.tokenizer": "bytes",
        "data.context": 32,
        "data.split": "train",
        "data.held_out": 0.01,
        "transformer.width": 8 * heads,
        "transformer.depth": 2,
        "transformer.mlp": 32,
        "transformer.heads": heads,
        "transformer.kv_heads": 0 if heads == 2 else min(net["kv_heads"], 2),
        "transformer.trained_context": net["trained_context"] and 16,
        "optimizer.warmup": "2 steps",
        "eval.every": "4 steps",
        "eval.split": config["eval"]["split"] and "validation",
    }
