"""Scaled dot-product attention, S = Q K^T / sqrt(d_k) + M, A = softmax(S), X' = A V; and the kernels for it.

Vaswani et al. 2017 (arXiv:1706.03762), section 3.2. Queries [B, T, K, Dh], keys and values [B, S, Kv, Dh], where Kv
divides K: query head i attends to key and value head i // (K / Kv). Kv = K is the paper's, Kv = 1 multi-query attention
(Shazeer 2019, arXiv:1911.02150), and between them is grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245).
A mask is bool, True where query t may attend to key s, and broadcasts to [B, K, T, S]. The result for a query without
any allowed key is zero.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gormley_vision.layers.partition import IMAGE_AXES, TENSOR_AXIS, mesh_platform
from gormley_vision.layers.short_attention import short_attention


class Rule(NamedTuple):
    """The conditions for a fused kernel; everything else uses `plain_attention`."""

    kernel: str
    platform: str
    dtypes: tuple[str, ...]
    head_multiple: int
    head_at_most: int
    length_at_most: int  # T and S
    masked_lengths_multiple: int  # T and S, if there is a mask other than the causal one; 0: the kernel takes none
    grouped: bool  # supports fewer key and value heads than query heads


# cuDNN supports heads of 256 on Hopper and newer, but the chip's generation is not static, so 128 is the limit; a mask
# becomes a bias, whose kernel needs even lengths.
RULES = (
    Rule("cudnn", "cuda", ("bfloat16", "float16"), 8, 128, 1 << 30, 2, True),
    Rule("short", "tpu", ("bfloat16",), 8, 256, 512, 0, False),
)


def choose_kernel(
    platform: str, dtype: str, head_dim: int, lengths: tuple[int, int], masked: bool, grouped: bool = False
) -> str:
    """Return the first kernel of `RULES` that supports heads of this kind, or 'plain'; `lengths` are (T, S)."""
    for rule in RULES:
        multiple = rule.masked_lengths_multiple
        fits_mask = not masked or (multiple and all(n % multiple == 0 for n in lengths))
        fits_head = head_dim % rule.head_multiple == 0 and head_dim <= rule.head_at_most
        fits = fits_mask and fits_head and max(lengths) <= rule.length_at_most and (rule.grouped or not grouped)
        if platform == rule.platform and dtype in rule.dtypes and fits:
            return rule.kernel
    return "plain"


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    causal: bool = False,
    drop: Callable[[jax.Array], jax.Array] | None = None,
    fused: bool = True,
) -> jax.Array:
    """Return X' = softmax(Q K^T / sqrt(Dh)) V, [B, T, K, Dh] in the queries' type, by the kernel that `RULES` choose.

    The kernel is chosen when the program is lowered for a platform, so that a machine may compile for another. `drop`
    is dropout of the weights A [B, K, T, S], which fused kernels do not store: with it, operations are plain. So they
    are without `fused`, for who needs a second derivative, which the kernels do not have.
    """
    _check(query, key, value)
    if drop is not None or not fused:
        return plain_attention(query, key, value, mask, causal, drop)
    # A process without a CUDA device cannot trace cuDNN's kernel, and does not lower for CUDA either. A TPU's kernel
    # must be told the mesh, which says what it is made of.
    platforms = ["cuda"] if any(device.platform == "gpu" for device in jax.devices()) else []
    platforms += ["tpu"] if mesh_platform() == "tpu" else []
    lengths, dtype, head_dim = (query.shape[1], key.shape[1]), str(query.dtype), query.shape[-1]
    masked, grouped = mask is not None, query.shape[2] != key.shape[2]
    chosen = {p: choose_kernel(p, dtype, head_dim, lengths, masked, grouped) for p in platforms}
    kernels = {p: partial(_KERNELS[name], causal=causal) for p, name in chosen.items() if name != "plain"}
    plain = partial(plain_attention, causal=causal)
    if not kernels:
        return plain(query, key, value, mask)
    return jax.lax.platform_dependent(query, key, value, mask, default=plain, **kernels)


def plain_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    causal: bool = False,
    drop: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Compute `attend` in plain operations, on any platform and dtype; scores and sums in float32 or wider.

    Two deviations from the formula do not change the value: Q is scaled rather than S, and A V is divided by each row's
    sum rather than A. Each saves a pass over [B, K, T, S], the bottleneck of an encoder on a CPU.
    """
    scores, allowed = _scores(query, key, mask, causal)
    # Shifting a row does not change its softmax, so no gradient flows through the shift.
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    if allowed is not None:
        weights = jnp.where(allowed, weights, 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if drop is not None:  # of A: the sum is that of all weights
        weights = drop(weights)
    # [B, K, T, Dh] rather than [B, T, K, Dh]: one matrix product per head, which CPUs run faster.
    weights, value = weights.astype(value.dtype), value.transpose(0, 2, 1, 3)
    weights, heads = _grouped(weights, value.shape[1]), weights.shape[:3]
    mixed = jnp.einsum("bkts,bksh->bkth", weights, value, preferred_element_type=scores.dtype)
    mixed = mixed.reshape(*heads, -1) / jnp.where(total > 0, total, 1)
    return mixed.transpose(0, 2, 1, 3).astype(query.dtype)


def attention_weights(
    query: jax.Array, key: jax.Array, *, mask: jax.Array | None = None, causal: bool = False
) -> jax.Array:
    """Return A, [B, K, T, S] in float32 or wider: rows sum to one, or to zero if the query has no allowed key.

    For figures; `attend` never computes it.
    """
    _check(query, key, key)
    scores, allowed = _scores(query, key, mask, causal)
    weights = jax.nn.softmax(scores, axis=-1)
    return weights if allowed is None else jnp.where(allowed, weights, 0)


def causal_mask(queries: int, keys: int) -> jax.Array:
    """Return [1, 1, T, S] bool: query t sees keys 0 ... t. The lecture's M is 0 where True, -infinity elsewhere."""
    return jnp.tril(jnp.ones((queries, keys), bool))[None, None]


def padding_mask(lengths: jax.Array, keys: int) -> jax.Array:
    """Return [B, 1, 1, S] bool: sequence b has only its first `lengths[b]` keys, the rest is padding."""
    return (jnp.arange(keys)[None] < lengths[:, None])[:, None, None, :]


def _scores(query, key, mask, causal) -> tuple[jax.Array, jax.Array | None]:
    """Return S [B, K, T, S], masked with the lowest number, and the mask (None: everything is allowed)."""
    compute = jnp.promote_types(query.dtype, jnp.float32)
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    query, key = query.transpose(0, 2, 1, 3), key.transpose(0, 2, 1, 3)
    scores = jnp.einsum("bkth,bksh->bkts", _grouped(query, key.shape[1]), key, preferred_element_type=compute)
    scores = scores.reshape(*query.shape[:3], -1)
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


def _grouped(x: jax.Array, heads: int) -> jax.Array:
    """Reshape [B, K, T, ...] to [B, Kv, K / Kv * T, ...]: the queries of all heads that share a key are rows of one."""
    return x.reshape(x.shape[0], heads, -1, x.shape[-1])


def _cudnn(query, key, value, mask, *, causal: bool, implementation: str = "cudnn") -> jax.Array:
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
    # jax masks with a large number, so a row without any allowed key would become the mean of all values.
    allowed = mask & causal_mask(query.shape[1], key.shape[1]) if causal else mask
    sees_any = jnp.broadcast_to(allowed.any(axis=-1), (query.shape[0], query.shape[2], query.shape[1]))
    return jnp.where(sees_any.transpose(0, 2, 1)[..., None], mixed, 0)


def _short(query, key, value, mask, *, causal: bool) -> jax.Array:
    """Run the kernel on each device's images and heads: XLA cannot partition it."""
    assert mask is None
    head_dim = query.shape[-1]
    split = PartitionSpec(IMAGE_AXES, None, TENSOR_AXIS)
    flat = [x.reshape(*x.shape[:2], -1) for x in (query, key, value)]

    def local(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return short_attention(query, key, value, query.shape[-1] // head_dim, causal)

    mesh = jax.sharding.get_abstract_mesh()
    return jax.shard_map(local, mesh=mesh, in_specs=(split,) * 3, out_specs=split, check_vma=False)(*flat).reshape(
        query.shape
    )


_KERNELS = {"cudnn": _cudnn, "short": _short}


def _check(query: jax.Array, key: jax.Array, value: jax.Array) -> None:
    alike = query.ndim == key.ndim == 4 and key.shape == value.shape
    if not alike or (key.shape[0], key.shape[3]) != (query.shape[0], query.shape[3]):
        raise ValueError(f"queries {query.shape}, keys {key.shape}, values {value.shape}: not [B, T or S, K, Dh] alike")
    if query.shape[2] % key.shape[2]:
        raise ValueError(f"{query.shape[2]} query heads do not divide into {key.shape[2]} groups, one a key head")
