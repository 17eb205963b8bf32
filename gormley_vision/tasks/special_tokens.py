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


def hide_some(key: jax.Array, tokens: jax.Array, valid: jax.Array, vocabulary: int, probability: float) -> jax.Array:
    """Return tokens int32 [B, T], of which each valid one has become [MASK] with `probability`, independently."""
    hidden = jax.random.bernoulli(key, probability, tokens.shape) & valid
    return jnp.where(hidden, vocabulary + MASK, tokens.astype(jnp.int32))


def mask_tokens(
    key: jax.Array,
    tokens: jax.Array,
    valid: jax.Array,
    vocabulary: int,
    *,
    probability: float,
    mask: float,
    other: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Choose tokens of one text to be predicted, and hide them: Devlin et al. 2018 (arXiv:1810.04805), section 3.1.

    Of n valid tokens round(probability * n) are chosen, at least one, as in BERT's code (google-research/bert,
    create_pretraining_data.py): their number has a limit, so that logits are computed for them alone. Of the chosen
    ones the share `mask` becomes [MASK], the share `other` any token of the vocabulary, and the rest stays as it is;
    each independently.

    Args:
        key: draws which, and what each becomes.
        tokens: int [T].
        valid: bool [T].
        vocabulary: V.
        probability: of a token to be chosen.
        mask: a share of the chosen ones.
        other: a share of the chosen ones.

    Returns:
        tokens int32 [T] to read; where the chosen ones are, int32 [K], without repetition; and which of these count,
        bool [K]: a text with padding has fewer than K.
    """
    chosen_key, way_key, other_key = jax.random.split(key, 3)
    draws = jnp.where(valid, jax.random.uniform(chosen_key, valid.shape), -1.0)
    _, at = jax.lax.top_k(draws, max(1, round(probability * len(tokens))))
    number = jnp.where(valid.any(), jnp.maximum(jnp.round(probability * valid.sum()), 1), 0)
    counts = jnp.arange(len(at)) < number
    tokens = tokens.astype(jnp.int32)
    way, anything = jax.random.uniform(way_key, at.shape), jax.random.randint(other_key, at.shape, 0, vocabulary)
    hidden = jnp.where(way < mask, vocabulary + MASK, jnp.where(way < mask + other, anything, tokens[at]))
    return tokens.at[at].set(jnp.where(counts, hidden, tokens[at]), unique_indices=True), at, counts
