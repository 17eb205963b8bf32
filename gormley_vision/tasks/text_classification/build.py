"""Makes the task from a config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision.data import tokenizers
from gormley_vision.data.features import Description
from gormley_vision.errors import UserError
from gormley_vision.models.sentence_cnn import SentenceCNN
from gormley_vision.models.transformer import Transformer
from gormley_vision.tasks import special_tokens
from gormley_vision.tasks.single_network import Training
from gormley_vision.tasks.text_classification.task import TextClassification, initial


def make_text_classification(config: Mapping[str, Any], description: Description) -> TextClassification:
    """Make the classifier, its optimizer and its tokenizer.

    Raises:
        UserError: fewer than two classes.
    """
    feature, options = description.features["tokens"], config["text_classification"]
    classes = len(description.class_names)
    if classes < 2:
        raise UserError(f"classification needs texts of at least two classes, and the data set has {classes}")
    tokenizer = tokenizers.from_saved(feature.tokenizer)
    vocabulary = feature.vocabulary or tokenizer.size
    same: dict[str, Any] = {
        "vocabulary": vocabulary + special_tokens.COUNT,
        "context": feature.shape[0] + 1,
        "classes": classes,
        "dtype": jnp.dtype(config["compute_dtype"]),
    }
    if options["network"] == "cnn":
        model: Transformer | SentenceCNN = SentenceCNN(**same, **config["cnn"])
    else:
        model = Transformer(**same, causal=False, **config["transformer"])
    params = jax.eval_shape(lambda key: initial(model, key), jax.random.key(0))
    only_head = options["only_head"]
    return TextClassification(
        model=model,
        training=Training.of(config, "text_classification", description.length, params, only_head=only_head),
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        label_smoothing=options["label_smoothing"],
        word_dropout=options["word_dropout"],
        class_names=description.class_names,
    )
