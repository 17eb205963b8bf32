"""Attention as the lecture writes it, S = Q K^T / sqrt(d_k) + M, A = softmax(S), X' = A V; and the kernels for it.

Vaswani et al. 2017 (arXiv:1706.03762), section 3.2. One head sees queries [B, T, K, Dh], keys and values [B, S, K, Dh].
A mask is bool and says who may attend to whom: True where query t may see key s, broadcast to [B, K, T, S]. A query
that may see nothing gets zeros. Weights are never dropped out: kernels that do not write them down could not do it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rule(NamedTuple):
    """Where a fused kernel applies; all else is `plain_attention`."""

    kernel: str
    platform: str
    dtypes: tuple[str, ...]
    head_multiple: int
    head_at_most: int
    masked_lengths_multiple: int  # T and S, where there is a mask: it becomes a bias, whose kernel wants even lengths


# cuDNN takes heads of 256 on Hopper and newer; a rule on the chip's generation is not static, so 128 is the limit.
RULES = (Rule("cudnn", "cuda", ("bfloat16", "float16"), 8, 128, 2),)


def choose_kernel(platform: str, dtype: str, head_dim: int, lengths: tuple[int, int], masked: bool) -> str:
    """The first kernel of `RULES` that takes heads of this kind, or 'plain'; `lengths` are (T, S)."""
    for rule in RULES:
        fits_mask = not masked or all(n % rule.masked_lengths_multiple == 0 for n in lengths)
        fits_head = head_dim % rule.head_multiple == 0 and head_dim <= rule.head_at_most
        if platform == rule.platform and dtype in rule.dtypes and fits_head and fits_mask:
            return rule.kernel
    return "plain"


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, mask: jax.Array | None = None, causal: bool = False
) -> jax.Array:
    """X' = softmax(Q K^T / sqrt(Dh)) V: [B, T, K, Dh] in the queries' type, by the kernel that `RULES` choose.

    The choice falls when the program is lowered for a platform, so that a machine may compile for another.
    """
    _check(query, key, value)
    # A process without a CUDA device cannot trace cuDNN's kernel, and will not lower for CUDA either.
    platforms = ("cuda",) if any(device.platform == "gpu" for device in jax.devices()) else ()
    lengths, dtype, head_dim = (query.shape[1], key.shape[1]), str(query.dtype), query.shape[-1]
    chosen = {p: choose_kernel(p, dtype, head_dim, lengths, mask is not None) for p in platforms}
    fused = {p: partial(_fused, implementation=name, causal=causal) for p, name in chosen.items() if name != "plain"}
    plain = partial(plain_attention, causal=causal)
    if not fused:
        return plain(query, key, value, mask)
    return jax.lax.platform_dependent(query, key, value, mask, default=plain, **fused)


def plain_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None, causal: bool = False
) -> jax.Array:
    """`attend` in plain operations, on any platform and dtype; scores and sums in float32 or wider.

    Two departures from the letter, neither of which changes the value: Q is scaled rather than S, and the sum of each
    row divides A V rather than A. Each saves a pass over [B, K, T, S], which is what an encoder waits for on a CPU.
    """
    scores, allowed = _scores(query, key, mask, causal)
    # Shifting a row by any number leaves its softmax as it is, so no gradient flows through the shift.
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    if allowed is not None:
        weights = jnp.where(allowed, weights, 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    # [B, K, T, Dh] rather than [B, T, K, Dh]: matrix products of contiguous heads, which CPUs run faster.
    weights, value = weights.astype(value.dtype), value.transpose(0, 2, 1, 3)
    mixed = jnp.einsum("bkts,bksh->bkth", weights, value, preferred_element_type=scores.dtype)
    mixed = mixed / jnp.where(total > 0, total, 1)
    return mixed.transpose(0, 2, 1, 3).astype(query.dtype)


def attention_weights(
    query: jax.Array, key: jax.Array, *, mask: jax.Array | None = None, causal: bool = False
) -> jax.Array:
    """A itself, [B, K, T, S] in float32 or wider: rows sum to one, or to zero where a query may see nothing.

    For pictures; `attend` never forms it.
    """
    _check(query, key, key)
    scores, allowed = _scores(query, key, mask, causal)
    weights = jax.nn.softmax(scores, axis=-1)
    return weights if allowed is None else jnp.where(allowed, weights, 0)


def causal_mask(queries: int, keys: int) -> jax.Array:
    """[1, 1, T, S] bool: query t sees keys 0 ... t, the lecture's triangular M (0 where True, -infinity where not)."""
    return jnp.tril(jnp.ones((queries, keys), bool))[None, None]


def padding_mask(lengths: jax.Array, keys: int) -> jax.Array:
    """[B, 1, 1, S] bool: of sequence b only the first `lengths[b]` keys are there."""
    return (jnp.arange(keys)[None] < lengths[:, None])[:, None, None, :]


def _scores(query, key, mask, causal) -> tuple[jax.Array, jax.Array | None]:
    """S [B, K, T, S] with the lowest number where a query may not look, and where it may (None: everywhere)."""
    compute = jnp.promote_types(query.dtype, jnp.float32)
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    query, key = query.transpose(0, 2, 1, 3), key.transpose(0, 2, 1, 3)
    scores = jnp.einsum("bkth,bksh->bkts", query, key, preferred_element_type=compute)
    allowed = mask
    if causal:
        below = causal_mask(*scores.shape[-2:])
        allowed = below if mask is None else mask & below
    if allowed is None:
        return scores, None
    if allowed.dtype != jnp.bool_ or allowed.ndim != 4:
        raise ValueError(f"a mask is bool with axes [B, K, T, S], not {allowed.dtype}{list(allowed.shape)}")
    allowed = jnp.broadcast_to(allowed, scores.shape)
    return jnp.where(allowed, scores, jnp.finfo(compute).min), allowed


def _fused(query, key, value, mask, *, implementation: str, causal: bool) -> jax.Array:
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask,
        is_causal=causal,
        implementation=implementation,  # type: ignore[call-overload]
    )
    if mask is None:
        return mixed
    # jax masks with a large number, so that a row without any key would become the mean of all values.
    allowed = mask & causal_mask(query.shape[1], key.shape[1]) if causal else mask
    sees_any = jnp.broadcast_to(allowed.any(axis=-1), (query.shape[0], query.shape[2], query.shape[1]))
    return jnp.where(sees_any.transpose(0, 2, 1)[..., None], mixed, 0)


def _check(query: jax.Array, key: jax.Array, value: jax.Array) -> None:
    alike = query.ndim == key.ndim == 4 and key.shape == value.shape
    if not alike or (key.shape[0], *key.shape[2:]) != (query.shape[0], *query.shape[2:]):
        raise ValueError(f"queries {query.shape}, keys {key.shape}, values {value.shape}: not [B, T or S, K, Dh] alike")
