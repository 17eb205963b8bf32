"""Gradient accumulation: a batch as microbatches, one after the other, for the memory of one; the same step.

Where every example is computed by itself, the gradient of a batch is the mean of its microbatches' gradients
(`accumulated`). BatchNorm reads the full batch, and microbatches with statistics of their own would be another
model's step. There the statistics come first: those of each layer take a pass over the microbatches, given those of the
layers before it (`run_in_microbatches`). L such layers cost L passes, each up to its layer, that are computed once more
for the gradient.

Microbatch i of n has examples i, i + n, ...: strides, so that each device's share of the batch stays with it.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from gormley_vision.layers.gan import BATCH_NORM_MOMENTUM, at_least_float32


def split(batch: Any, microbatches: int) -> Any:
    """Arrays [m, ...] as [microbatches, m / microbatches, ...]."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0), batch)


def joined(parts: jax.Array) -> jax.Array:
    """[microbatches, m / microbatches, ...] as [m, ...], in the batch's own order."""
    return jnp.moveaxis(parts, 0, 1).reshape(-1, *parts.shape[2:])


def accumulated(function: Callable, params: Any, batch: Any, microbatches: int) -> Any:
    """The mean of `function(params, microbatch, number)` over the microbatches of a batch [m, ...]."""
    if microbatches == 1:
        return function(params, batch, jnp.int32(0))
    parts = split(batch, microbatches)

    def add(total: Any, part: tuple[Any, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(params, *part)), None

    numbers = jnp.arange(microbatches)
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, params, first, numbers[0]))
    total, _ = jax.lax.scan(add, zeros, (parts, numbers))
    return jax.tree.map(lambda x: x / microbatches, total)


def run_in_microbatches(
    module: nn.Module, variables: Any, inputs: jax.Array, labels: jax.Array | None, microbatches: int
) -> tuple[jax.Array, Any]:
    """`module` in training mode on [m, ...]: its outputs [m, ...], and its running statistics moved by the batch.

    Differentiable; a gradient keeps the activations of one microbatch at a time, and recomputes them.
    """
    parts = split((inputs, labels), microbatches)
    running = flatten_dict(variables["batch_stats"])  # {(*path of a layer, 'mean' or 'var'): [C]}

    def run(statistics: Any, part: Any) -> tuple[Any, dict[tuple[str, ...], jax.Array]]:
        """A microbatch's outputs under these statistics, and for each BatchNorm the mean and mean square of inputs."""
        moments: dict[tuple[str, ...], jax.Array] = {}

        def watch(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, nn.BatchNorm):
                x = at_least_float32(args[0])
                but_channels = range(x.ndim - 1)
                moments[context.module.path] = jnp.stack([x.mean(but_channels), (x * x).mean(but_channels)])
            return call(*args, **kwargs)

        with nn.intercept_methods(watch):
            given = {"params": variables["params"], "batch_stats": unflatten_dict(statistics)}
            outputs = module.apply(given, *part, train=False)
        return outputs, moments

    def each(statistics: Any, chosen: Callable) -> jax.Array:
        """What is `chosen` of each microbatch's run, stacked; a gradient runs the microbatch again."""
        return jax.lax.map(jax.checkpoint(lambda part: chosen(*run(statistics, part))), parts)

    order = list(jax.eval_shape(run, running, jax.tree.map(lambda x: x[0], parts))[1])
    statistics = dict(running)  # those of layers not yet reached do not matter
    for path in order:
        mean, square = each(statistics, lambda _, moments, path=path: moments[path]).mean(0)
        statistics |= {(*path, "mean"): mean, (*path, "var"): jnp.maximum(square - mean * mean, 0)}
    outputs = each(statistics, lambda outputs, _: outputs)
    kept = BATCH_NORM_MOMENTUM
    moved = {name: kept * old + (1 - kept) * statistics[name] for name, old in running.items()}
    return joined(outputs), unflatten_dict(moved)
