"""Attention in one kernel for TPUs: all scores of an image or a text stay on the chip, as those of short sequences can.

The formula is that of layers/attention.py. XLA writes scores [B, K, T, S] to memory and changes their layout several
times, which takes two thirds of a ViT-L/16's step by its compiler's estimate. Here each grid point reads queries, keys
and values of one sequence and some heads, side by side as projections leave them, and writes only the result. The
backward pass reads the same and computes the scores again (as Dao et al. 2022, arXiv:2205.14135, do for blocks of long
sequences). Products are in the inputs' type with sums in float32; the softmax is in float32.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

_LOWEST = float(jnp.finfo(jnp.float32).min)
_BLOCK_BYTES = 2**19  # of each array at a grid point: seven of them, twice, and some scores fit in 16 MiB
_LANES = 128


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def short_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, heads: int, causal: bool = False, interpret: bool = False
) -> jax.Array:
    """Return softmax(Q K^T / sqrt(Dh)) V of each head, [B, T, K * Dh]; query t sees keys 0 ... t if `causal`.

    Args:
        query: [B, T, K * Dh]; `key` and `value` are [B, S, K * Dh].
        heads: K.
        interpret: run the kernel as jax operations, on any platform, for tests.
    """
    (mixed,) = _call(_forward, [query], (query, key, value), 2, heads, causal, interpret)
    return mixed


def _save(query, key, value, heads, causal, interpret):
    return short_attention(query, key, value, heads, causal, interpret), (query, key, value)


def _pull(heads, causal, interpret, inputs, gradient):
    return tuple(_call(_backward, list(inputs), (*inputs, gradient), 5, heads, causal, interpret))


short_attention.defvjp(_save, _pull)


def _call(
    kernel: Callable,
    results: list[jax.Array],
    inputs: Sequence[jax.Array],
    products: int,
    heads: int,
    causal: bool,
    interpret: bool,
) -> list[jax.Array]:
    """Run the kernel for each sequence and group of heads; results have the shapes and types of `results`."""
    (batch, queries, width), keys = inputs[0].shape, inputs[1].shape[1]
    group = _group(heads, width // heads, max(queries, keys) * inputs[0].dtype.itemsize)

    def one(x: jax.Array) -> pl.BlockSpec:
        return pl.BlockSpec((1, x.shape[1], group * width // heads), lambda sequence, part: (sequence, 0, part))

    moved = sum(x.size * x.dtype.itemsize for x in (*inputs, *results))
    cost = pl.CostEstimate(
        flops=2 * products * batch * queries * keys * width,
        transcendentals=batch * heads * queries * keys,
        bytes_accessed=moved,
    )
    return pl.pallas_call(
        partial(kernel, heads=group, causal=causal),
        grid=(batch, heads // group),
        in_specs=[one(x) for x in inputs],
        out_specs=[one(x) for x in results],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        cost_estimate=cost,
        interpret=interpret,
    )(*inputs)


def _group(heads: int, head_dim: int, row_bytes: int) -> int:
    """Return how many heads a grid point takes: as many as fit, in columns that a block may have."""
    sizes = [n for n in range(1, heads) if heads % n == 0 and n * head_dim % _LANES == 0]
    fitting = [n for n in sizes if n * head_dim * row_bytes <= _BLOCK_BYTES]
    if heads * head_dim * row_bytes <= _BLOCK_BYTES or not sizes:
        return heads
    return max(fitting, default=min(sizes))


def _forward(query_ref, key_ref, value_ref, mixed_ref, *, heads: int, causal: bool) -> None:
    for head in _parts(query_ref, heads):
        weights = _weights(query_ref[head], key_ref[head], causal)
        mixed_ref[head] = _product(weights.astype(value_ref.dtype), value_ref[head], 1, 0).astype(mixed_ref.dtype)


def _backward(
    query_ref, key_ref, value_ref, gradient_ref, to_query_ref, to_key_ref, to_value_ref, *, heads: int, causal: bool
) -> None:
    """With P = softmax(S), S = Q K^T / sqrt(Dh): dV = P^T dO, dP = dO V^T, dS = P * (dP - rowsum(dP * P))."""
    for head in _parts(query_ref, heads):
        query, key, value, gradient = (ref[head] for ref in (query_ref, key_ref, value_ref, gradient_ref))
        weights = _weights(query, key, causal)
        to_value_ref[head] = _product(weights.astype(value.dtype), gradient, 0, 0).astype(to_value_ref.dtype)
        to_weights = _product(gradient, value, 1, 1)
        to_scores = weights * (to_weights - jnp.sum(to_weights * weights, axis=1, keepdims=True))
        to_scores = (to_scores * query.shape[-1] ** -0.5).astype(query.dtype)
        to_query_ref[head] = _product(to_scores, key, 1, 0).astype(to_query_ref.dtype)
        to_key_ref[head] = _product(to_scores, query, 0, 0).astype(to_key_ref.dtype)


def _parts(ref, heads: int):
    """Yield the index of each head in a block [1, T, K * Dh]."""
    size = ref.shape[-1] // heads
    for head in range(heads):
        yield 0, slice(None), pl.ds(head * size, size)


def _weights(query: jax.Array, key: jax.Array, causal: bool) -> jax.Array:
    """Return softmax(S) of one head [T, S], in float32."""
    scores = _product(query, key, 1, 1) * query.shape[-1] ** -0.5
    if causal:
        rows, columns = (jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis) for axis in (0, 1))
        scores = jnp.where(columns <= rows, scores, _LOWEST)
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _product(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """Return the matrix product that sums over these axes, in float32."""
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)
