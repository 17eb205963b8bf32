"""Gradient accumulation: a batch in microbatches, one after another, with the memory of one and the same result.

If examples do not depend on each other, the gradient of a batch is the mean of its microbatches' gradients
(`accumulated`). BatchNorm reads the entire batch, and statistics of each microbatch would change the model. There
the statistics are computed first: those of each layer take a pass over the microbatches, given those of the layers
before it (`run_in_microbatches`). L such layers cost L passes, each up to its layer, which the gradient computes again.

Microbatch i of n has examples i, i + n, ...: strided, so that each example stays on its device.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from gormley_vision.layers.gan import BATCH_NORM_MOMENTUM, at_least_float32


def split(batch: Any, microbatches: int) -> Any:
    """Reshape arrays [m, ...] to [microbatches, m / microbatches, ...]."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0), batch)


def joined(parts: jax.Array) -> jax.Array:
    """Reshape [microbatches, m / microbatches, ...] to [m, ...], in the batch's own order."""
    return jnp.moveaxis(parts, 0, 1).reshape(-1, *parts.shape[2:])


def accumulated(function: Callable, params: Any, batch: Any, microbatches: int) -> Any:
    """Return the mean of `function(params, microbatch, number)` over the microbatches of a batch [m, ...]."""
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


def of_each(function: Callable, batch: Any, microbatches: int) -> Any:
    """Return `function(microbatch, number)` of each microbatch of a batch [m, ...], stacked on a first axis.

    Differentiable: a gradient keeps the activations of one microbatch at a time, and recomputes them.
    """
    if microbatches == 1:
        return jax.tree.map(lambda x: x[None], function(batch, jnp.int32(0)))
    parts = split(batch, microbatches), jnp.arange(microbatches)
    return jax.lax.map(jax.checkpoint(lambda part: function(*part)), parts)


def run_in_microbatches(
    module: nn.Module, variables: Any, inputs: jax.Array, labels: jax.Array | None, microbatches: int
) -> tuple[Any, Any]:
    """Run `module` in training mode on [m, ...]. Returns outputs [m, ...] and updated running statistics.

    Differentiable: a gradient keeps the activations of one microbatch at a time, and recomputes them.
    """
    parts = split((inputs, labels), microbatches)
    running = flatten_dict(variables["batch_stats"])  # {(*path of a layer, 'mean' or 'var'): [C]}

    def run(statistics: Any, part: Any) -> tuple[Any, dict[tuple[str, ...], jax.Array]]:
        """Return a microbatch's outputs, and for each BatchNorm the mean and mean square of its inputs."""
        moments: dict[tuple[str, ...], jax.Array] = {}

        def watch(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, nn.BatchNorm):
                x = at_least_float32(args[0])
                but_channels = range(x.ndim - 1)
                moments[context.module.path] = jnp.stack([x.mean(but_channels), (x * x).mean(but_channels)])
            return call(*args, **kwargs)

        with nn.intercept_methods(watch):
            with_statistics = {"params": variables["params"], "batch_stats": unflatten_dict(statistics)}
            outputs = module.apply(with_statistics, *part, train=False)
        return outputs, moments

    def each(statistics: Any, chosen: Callable) -> Any:
        """Return `chosen` of each microbatch's run, stacked; a gradient runs the microbatch again."""
        return jax.lax.map(jax.checkpoint(lambda part: chosen(*run(statistics, part))), parts)

    order = list(jax.eval_shape(run, running, jax.tree.map(lambda x: x[0], parts))[1])
    statistics = dict(running)  # those of layers not yet reached do not matter
    for path in order:
        mean, square = each(statistics, lambda _, moments, path=path: moments[path]).mean(0)
        statistics |= {(*path, "mean"): mean, (*path, "var"): jnp.maximum(square - mean * mean, 0)}
    outputs = each(statistics, lambda outputs, _: outputs)
    momentum = BATCH_NORM_MOMENTUM
    updated = {name: momentum * old + (1 - momentum) * statistics[name] for name, old in running.items()}
    return jax.tree.map(joined, outputs), unflatten_dict(updated)
