"""Update rules with their schedules: GAN players have constant ones, classifiers warm up and decay."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib


def make_optimizer(*, name: str, learning_rate: float, momentum: float, beta2: float) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2014, eps 1e-8 as in DCGAN's code), or SGD with heavy-ball momentum."""
    if name == "adam":
        return optax.adam(learning_rate, b1=momentum, b2=beta2)
    return optax.sgd(learning_rate, momentum=momentum)


def make_classifier_optimizer(
    *,
    name: str,
    learning_rate: float,
    schedule: str,
    warmup_steps: int,
    total_steps: int,
    momentum: float,
    beta2: float,
    weight_decay: float,
    clip_norm: float,
    layer_decay: float,
    only_head: bool,
) -> optax.GradientTransformation:
    """Clipping by the global norm; AdamW (Loshchilov & Hutter 2017), Muon or momentum SGD; decoupled decay of kernels.

    The rate warms up linearly and then falls along half a cosine to 0, or stays. `layer_decay` multiplies the update of
    block l by layer_decay^(L - l), of the embeddings by layer_decay^(L + 1) (BEiT, arXiv:2106.08254, appendix), with
    blocks counted from 0. `only_head` freezes everything else: a linear probe.
    """
    rate = make_schedule(schedule, learning_rate, warmup_steps, total_steps)
    rules = {
        "adam": lambda: optax.scale_by_adam(b1=momentum, b2=beta2),
        "muon": lambda: scale_by_muon(momentum, beta2),
        "momentum_sgd": lambda: optax.trace(decay=momentum),
    }
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    chain += [rules[name](), optax.add_decayed_weights(weight_decay, mask=_kernels)]
    if layer_decay != 1:
        chain.append(optax.stateless(lambda updates, _: _by_depth(updates, layer_decay)))
    chain.append(optax.scale_by_learning_rate(rate))
    optimizer = optax.chain(*chain)
    if not only_head:
        return optimizer
    return optax.multi_transform(
        {"head": optimizer, "frozen": optax.set_to_zero()},
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: _group(path), params),
    )


def scale_by_muon(momentum: float, beta2: float) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for the matrices of the layers, Adam with Nesterov momentum for all else.

    A matrix' momentum is replaced by the nearest orthogonal matrix, and scaled as in Liu et al. 2025 (arXiv:2502.16982)
    to the root mean square 0.2 that Adam's updates have, so that Adam's rates and decay serve.
    """
    rule = optax.contrib.muon(
        1.0,
        beta=momentum,
        adam_b1=momentum,
        adam_b2=beta2,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=_matrix_axes,
    )
    return optax.chain(rule, optax.scale(-1.0))  # a direction, as scale_by_adam gives it: decay and rate come later


def _matrix_axes(params: Any) -> Any:
    """The input and output axes of each stacked matrix of the layers; None for what is no matrix."""
    axes = {
        5: optax.contrib.MuonDimensionNumbers(1, (2, 4)),  # qkv [L, D, K, 3, Dh]: of Q, K and V each
        4: optax.contrib.MuonDimensionNumbers((1, 2), 3),  # out [L, K, Dh, D]
        3: optax.contrib.MuonDimensionNumbers(1, 2),  # of the MLP
    }
    return jax.tree_util.tree_map_with_path(
        lambda path, x: axes[x.ndim] if path[0].key == "encoder" and path[-1].key == "kernel" else None, params
    )


def make_schedule(schedule: str, peak: float, warmup_steps: int, total_steps: int) -> Callable[[Any], Any]:
    """Learning rate of update 0, 1, ...: the first is peak / warmup_steps, the last is not yet 0."""

    def rate(count):
        count = jnp.asarray(count, jnp.float32)
        warm = jnp.minimum((count + 1) / max(warmup_steps, 1), 1.0)
        if schedule == "constant":
            return peak * warm
        done = jnp.clip((count - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
        return peak * warm * (1 + jnp.cos(jnp.pi * done)) / 2

    return rate


def _group(path: Any) -> str:
    return "head" if path[0].key == "head" else "frozen"


def _kernels(params: Any) -> Any:
    """Which leaves decay: matrices. Layers are stacked, so that a bias has two axes as well: names tell."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in ("kernel", "patch_embedding"), params)


def _by_depth(updates: Any, decay: float) -> Any:
    depth = next(iter(jax.tree.leaves(updates["encoder"]))).shape[0]

    def scaled(path, update):
        top = path[0].key
        if top == "encoder":
            factors = decay ** (depth - jnp.arange(depth, dtype=update.dtype))
            return update * factors.reshape(-1, *(1,) * (update.ndim - 1))
        embeds = top in ("patch_embedding", "patch_bias", "class_token", "position_embedding", "registers")
        return update * decay ** (depth + 1) if embeds else update

    return jax.tree_util.tree_map_with_path(scaled, updates)
