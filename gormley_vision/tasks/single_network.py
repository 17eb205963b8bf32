"""A task that trains one network by gradient descent on a loss: its state, and one step. Shared by tasks on text."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gormley_vision import durations
from gormley_vision.finiteness import finite
from gormley_vision.randomness import named_key
from gormley_vision.tasks.accumulation import accumulated
from gormley_vision.tasks.networks import (
    Network,
    Variables,
    apply_gradients,
    ema_decay,
    moving_average,
    new_network,
)
from gormley_vision.tasks.optimizers import make_scheduled_optimizer

Arrays = dict[str, jax.Array]
# (params, microbatch, dropout key) to the loss and more scalars, each a mean over microbatches.
Loss = Callable[[Any, Any, jax.Array], tuple[jax.Array, Arrays]]


@flax.struct.dataclass
class State:
    """All that training changes. `ema` holds the averaged variables, which evaluation and sampling use."""

    step: jax.Array
    network: Network
    ema: Variables


@dataclasses.dataclass(frozen=True)
class Training:
    """How the network is trained."""

    optimizer: optax.GradientTransformation
    batch_size: int
    accumulate: int  # microbatches
    ema_half_life: float  # examples
    ema_ramp: float

    @classmethod
    def of(cls, config: Mapping[str, Any], section: str, length: int, params: Any, **options: Any) -> "Training":
        """Return what a config describes.

        Args:
            section: of the config that has `average_fields`.
            length: of the data set, in examples.
            params: abstract parameters in flax's boxes.
            options: of `make_scheduled_optimizer`, besides those of the config.
        """
        size, optimizer = config["data"]["batch_size"], dict(config["optimizer"])
        examples = {"epoch_images": length, "step_images": size}
        return cls(
            optimizer=make_scheduled_optimizer(
                params=params,
                warmup_steps=durations.to_steps(optimizer.pop("warmup"), **examples),
                total_steps=durations.to_steps(config["duration"], **examples),
                **optimizer,
                **options,
            ),
            batch_size=size,
            accumulate=config["accumulate"],
            ema_half_life=durations.to_images(config[section]["ema_half_life"], **examples),
            ema_ramp=config[section]["ema_ramp"],
        )

    def start(self, params: Any) -> State:
        """Return the state before the first step."""
        variables = {"params": params, "batch_stats": {}}
        ema = jax.tree.map(jnp.copy, variables)  # a copy: a donated buffer may appear only once
        return State(jnp.zeros((), jnp.int32), new_network(variables, self.optimizer), ema)

    def step(self, state: State, batch: Any, key: jax.Array, loss: Loss) -> tuple[State, Arrays, Arrays]:
        """Take one gradient step on a batch [m, ...]: see `Task.train_step`.

        `loss` is that of a microbatch; the step's is the mean over microbatches.
        """
        network, dropout_key = state.network, named_key(key, "dropout", state.step)

        def of_microbatch(params: Any, microbatch: Any, number: jax.Array) -> tuple[jax.Array, Arrays]:
            return loss(params, microbatch, jax.random.fold_in(dropout_key, number))

        gradient = jax.value_and_grad(of_microbatch, has_aux=True)
        (value, more), gradients = accumulated(gradient, network.variables["params"], batch, self.accumulate)
        metrics = {"loss/train": value, **more, "gradient_norm/network": optax.tree.norm(gradients)}
        checks = finite("network/loss", value) | finite("network/gradient", gradients)
        network = apply_gradients(network, gradients, {}, self.optimizer)
        seen = (state.step.astype(jnp.float32) + 1) * self.batch_size
        decay = ema_decay(seen, self.batch_size, self.ema_half_life, self.ema_ramp)
        return State(state.step + 1, network, moving_average(state.ema, network.variables, decay)), metrics, checks

    def shares(self, weights: jax.Array) -> jax.Array:
        """Return weights [m, ...] by which the mean over microbatches of their sums is the batch's weighted mean."""
        weights = weights.astype(jnp.float32)
        return weights * (self.accumulate / jnp.maximum(weights.sum(), 1))


def with_positions(weights: Arrays, state: State) -> Arrays:
    """Return another run's weights with tables of positions as long as those of `state`.

    Of a table for a shorter context, all rows come first, and the others are fresh; of a longer one, the first rows.
    """
    fitted = dict(weights)
    for part, variables in (("ema", state.ema), ("network/variables", state.network.variables)):
        if (name := f"{part}/params/position_embedding") in weights:
            table, old = variables["params"]["position_embedding"], weights[name]
            fitted[name] = jnp.concatenate([old[: len(table)], table[len(old) :]])
    return fitted
