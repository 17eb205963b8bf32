"""Makes the task from a config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision.data import tokenizers
from gormley_vision.data.features import Description
from gormley_vision.models.transformer import Transformer
from gormley_vision.tasks.language_modeling.task import LanguageModeling
from gormley_vision.tasks.single_network import Training


def make_language_modeling(config: Mapping[str, Any], description: Description) -> LanguageModeling:
    """Make the model, its optimizer and its tokenizer."""
    feature, context = description.features["tokens"], config["data"]["context"]
    tokenizer, options = tokenizers.from_saved(feature.tokenizer), config["language_modeling"]
    model = Transformer(
        vocabulary=feature.vocabulary or tokenizer.size,
        context=context,
        causal=True,
        tied=options["tied"],
        dtype=jnp.dtype(config["compute_dtype"]),
        **config["transformer"],
    )
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, context), jnp.int32))["params"]
    return LanguageModeling(
        model=model,
        training=Training.of(config, "language_modeling", description.length, params),
        tokenizer=tokenizer,
        prompt=options["preview"],
    )
