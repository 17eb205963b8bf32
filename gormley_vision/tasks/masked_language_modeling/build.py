"""Makes the task from a config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gormley_vision.data import tokenizers
from gormley_vision.data.features import Description
from gormley_vision.models.transformer import Transformer
from gormley_vision.tasks import special_tokens
from gormley_vision.tasks.masked_language_modeling.task import MaskedLanguageModeling
from gormley_vision.tasks.single_network import Training


def make_masked_language_modeling(config: Mapping[str, Any], description: Description) -> MaskedLanguageModeling:
    """Make the model and its optimizer."""
    feature, options = description.features["tokens"], config["masked_language_modeling"]
    tokenizer = tokenizers.from_saved(feature.tokenizer)
    vocabulary = feature.vocabulary or tokenizer.size
    model = Transformer(
        vocabulary=vocabulary + special_tokens.COUNT,
        context=feature.shape[0] + 1,
        causal=False,
        dtype=jnp.dtype(config["compute_dtype"]),
        **config["transformer"],
    )
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, model.context), jnp.int32))["params"]
    return MaskedLanguageModeling(
        model=model,
        training=Training.of(config, "masked_language_modeling", description.length, params),
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        probability=options["probability"],
        mask_share=options["mask_share"],
        random_share=options["random_share"],
    )
