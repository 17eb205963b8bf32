"""Tokens that an encoder of text has besides those of its tokenizer: [CLS], which begins every text, and [MASK].

Their numbers follow the vocabulary's: [CLS] is V, [MASK] is V + 1.
"""

import jax
import jax.numpy as jnp

CLS, MASK = 0, 1  # added to V
COUNT = 2


def with_cls(tokens: jax.Array, valid: jax.Array, vocabulary: int) -> tuple[jax.Array, jax.Array]:
    """Put [CLS] before each text: tokens int [B, T] and valid bool [B, T] to [B, T + 1]."""
    first = ((0, 0), (1, 0))
    tokens = jnp.pad(tokens.astype(jnp.int32), first, constant_values=vocabulary + CLS)
    return tokens, jnp.pad(valid, first, constant_values=True)


def mask_tokens(
    key: jax.Array,
    tokens: jax.Array,
    valid: jax.Array,
    vocabulary: int,
    *,
    probability: float,
    mask: float,
    other: float,
) -> tuple[jax.Array, jax.Array]:
    """Choose tokens to be predicted, and hide them: Devlin et al. 2018 (arXiv:1810.04805), section 3.1, task 1.

    Each valid token is chosen with `probability`, independently (BERT's code fixes their number). Of the chosen ones
    the share `mask` becomes [MASK], the share `other` any token of the vocabulary, and the rest stays as it is.

    Returns:
        tokens int32 [B, T] to read, and bool [B, T], which were chosen.
    """
    chosen_key, way_key, other_key = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(chosen_key, probability, tokens.shape) & valid
    way = jax.random.uniform(way_key, tokens.shape)
    anything = jax.random.randint(other_key, tokens.shape, 0, vocabulary)
    hidden = jnp.where(way < mask, vocabulary + MASK, jnp.where(way < mask + other, anything, tokens.astype(jnp.int32)))
    return jnp.where(chosen, hidden, tokens.astype(jnp.int32)), chosen
