"""Optimizers with their learning-rate schedules: constant for GAN players, warm-up and decay for single networks.

What an optimizer does differently for some parameters follows from the names of their axes (axes.py). Options that need
names are refused without them; Adam and SGD without weight decay need none.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from gormley_vision.axes import Parameter, is_embedding, is_end, map_parameters, sides
from gormley_vision.errors import UserError
from gormley_vision.tasks.scalars import Number


def make_optimizer(
    *, name: str, learning_rate: Number, momentum: Number, beta2: Number
) -> optax.GradientTransformation:
    """Return Adam (Kingma & Ba 2014, eps 1e-8 as in DCGAN's code), RMSProp, or SGD with heavy-ball momentum.

    RMSProp's decay is `beta2`, and its eps 1e-8 as in WGAN's code. Numbers may be traced, of a schedule in a step.
    """
    if name == "adam":
        return optax.adam(learning_rate, b1=momentum, b2=beta2)
    if name == "rmsprop":
        return optax.chain(optax.scale_by_rms(decay=beta2, eps=1e-8), optax.scale_by_learning_rate(learning_rate))
    return optax.sgd(learning_rate, momentum=momentum)


def player_optimizer(rules: Mapping[str, str], player: str, scalars: Mapping[str, Number]) -> Any:
    """Return a player's update rule, of `rules` by player, with a step's numbers by config key."""
    numbers = {name: scalars[f"{player}_optimizer.{name}"] for name in ("learning_rate", "momentum", "beta2")}
    return make_optimizer(name=rules[player], **numbers)


def make_scheduled_optimizer(
    *,
    params: Any,
    name: str,
    learning_rate: float,
    schedule: str,
    warmup_steps: int,
    total_steps: int,
    final_rate: float = 0.0,
    momentum: float,
    beta2: float,
    weight_decay: float,
    clip_norm: float,
    layer_decay: float,
    only_head: bool = False,
) -> optax.GradientTransformation:
    """Return clipping; AdamW (Loshchilov & Hutter 2017), Muon or momentum SGD; decoupled decay of matrices.

    The rate warms up linearly, then falls along half a cosine to `final_rate` times itself, or is constant.
    `layer_decay` multiplies the updates of block l by layer_decay^(L - l), of the embeddings by layer_decay^(L + 1)
    (BEiT, arXiv:2106.08254, appendix), with blocks counted from 0. `only_head` freezes everything else: a linear probe.

    Args:
        params: abstract parameters in flax's boxes, as `jax.eval_shape` of a module's `init` returns them.

    Raises:
        UserError: Muon, weight decay or layer-wise decay of parameters whose axes have no known names.
    """
    rate = make_schedule(schedule, learning_rate, warmup_steps, total_steps, final_rate)
    rules = {
        "adam": lambda: optax.scale_by_adam(b1=momentum, b2=beta2),
        "muon": lambda: scale_by_muon(params, momentum, beta2),
        "momentum_sgd": lambda: optax.trace(decay=momentum),
    }
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    chain += [rules[name](), optax.add_decayed_weights(weight_decay, mask=_decayed(params, weight_decay))]
    if layer_decay != 1:
        scales = _scales_by_depth(params, layer_decay)
        # Frozen parameters are empty nodes in the tree of updates, hence the inner map.
        chain.append(optax.stateless(lambda updates, _: jax.tree.map(jax.tree.map, scales, updates)))
    chain.append(optax.scale_by_learning_rate(rate))
    optimizer = optax.chain(*chain)
    if not only_head:
        return optimizer
    return optax.multi_transform(
        {"head": optimizer, "frozen": optax.set_to_zero()},
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: _group(path), params),
    )


def scale_by_muon(params: Any, momentum: float, beta2: float) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for hidden matrices, Adam with Nesterov momentum for all else.

    A matrix' momentum is replaced by the nearest orthogonal matrix, and scaled as in Liu et al. 2025 (arXiv:2502.16982)
    to the root mean square 0.2 that Adam's updates have, so that Adam's rates and decay apply. As its authors advise
    (github.com/KellerJordan/Muon), Adam updates embeddings, heads and a network's first convolution, and the kernel of
    any other convolution is a matrix with its window on one side: [k*k*in, out], or [k*k*out, in] if transposed.
    """
    rule = optax.contrib.muon(
        1.0,
        beta=momentum,
        adam_b1=momentum,
        adam_b2=beta2,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=matrix_axes(params),
    )
    return optax.chain(rule, optax.scale(-1.0))  # a direction, like scale_by_adam's: decay and rate follow


def matrix_axes(params: Any) -> Any:
    """Return the axes of each hidden matrix' two sides, in optax's form; None for any other parameter.

    Raises:
        UserError: a parameter's axes are not named, or are of more than two sides.
    """

    def axes(parameter: Parameter) -> optax.contrib.MuonDimensionNumbers | None:
        found = _sides(parameter, "optimizer.name=muon", "optimizer.name=adam")
        if len(found) < 2 or (parameter.names is not None and is_end(parameter.names)):
            return None
        if len(found) > 2:
            question = f"which of its axes ({', '.join(parameter.names or ())}) make two sides of a matrix"
            raise _unclear(parameter, "optimizer.name=muon", question, "optimizer.name=adam")
        return optax.contrib.MuonDimensionNumbers(*found)

    return map_parameters(axes, params)


def make_schedule(
    schedule: str, peak: float, warmup_steps: int, total_steps: int, final: float = 0.0
) -> Callable[[Any], Any]:
    """Return the learning rate of update 0, 1, ...: the first is peak / warmup_steps, the last not yet final * peak."""

    def rate(count):
        count = jnp.asarray(count, jnp.float32)
        warm = jnp.minimum((count + 1) / max(warmup_steps, 1), 1.0)
        if schedule == "constant":
            return peak * warm
        done = jnp.clip((count - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
        return peak * warm * (final + (1 - final) * (1 + jnp.cos(jnp.pi * done)) / 2)

    return rate


def _group(path: Any) -> str:
    return "head" if path[0].key == "head" else "frozen"


def _decayed(params: Any, weight_decay: float) -> Any:
    """Mark the parameters that decay: matrices, by their axes' names, as a bias of stacked layers has two axes, too."""

    def decays(parameter: Parameter) -> bool:
        what = f"optimizer.weight_decay={weight_decay}"
        return bool(weight_decay) and len(_sides(parameter, what, "optimizer.weight_decay=0")) > 1

    return map_parameters(decays, params)


def _sides(parameter: Parameter, what: str, instead: str) -> list[tuple[int, ...]]:
    """Return a parameter's sides as a matrix; a single axis is one side, whatever its name."""
    if parameter.names is not None:
        return sides(parameter.names)
    if len(parameter.shape) < 2:
        return [(axis,) for axis in range(len(parameter.shape))]
    raise _unclear(parameter, what, "whether it is a matrix", instead)


def _unclear(parameter: Parameter, what: str, question: str, instead: str) -> UserError:
    return UserError(
        f"{what}: {parameter} does not say {question}: name its axes as in gormley_vision/axes.py, or pass "
        f"--config.{instead}"
    )


def _scales_by_depth(params: Any, decay: float) -> Any:
    """Return for each parameter a function that scales its update: smaller for layers nearer to the data."""
    what, instead, depths = f"optimizer.layer_decay={decay}", "optimizer.layer_decay=1", set[int]()

    def note_depth(parameter: Parameter) -> None:
        if parameter.names is None:
            raise _unclear(parameter, what, "whether it belongs to the layers or to an embedding", instead)
        depths.update(size for name, size in zip(parameter.names, parameter.shape, strict=True) if name == "layers")

    map_parameters(note_depth, params)
    if len(depths) != 1:
        found = f"stacks of {', '.join(map(str, sorted(depths)))} layers" if depths else "no axis 'layers'"
        raise UserError(f"{what} needs one stack of layers, and the parameters have {found}: pass --config.{instead}")
    (depth,) = depths

    def scale(parameter: Parameter) -> Callable[[jax.Array], jax.Array]:
        names = parameter.names or ()
        if "layers" in names:
            shape = [-1 if name == "layers" else 1 for name in names]
            return lambda x: x * (decay ** (depth - jnp.arange(depth, dtype=x.dtype))).reshape(shape)
        return (lambda x: x * decay ** (depth + 1)) if is_embedding(names) else (lambda x: x)

    return map_parameters(scale, params)
