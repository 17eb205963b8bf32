"""One update of each player: its loss, and what changes of its state. The other player is fixed."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gormley_vision.finiteness import finite
from gormley_vision.losses import penalties
from gormley_vision.losses.reconstruction import RECONSTRUCTION
from gormley_vision.losses.style import content_loss
from gormley_vision.tasks.accumulation import accumulated, joined, of_each
from gormley_vision.tasks.image_to_image.degradations import Given
from gormley_vision.tasks.networks import Network, apply_gradients, update_norm
from gormley_vision.tasks.scalars import Number

if TYPE_CHECKING:
    from gormley_vision.tasks.image_to_image.task import Translation

Arrays = dict[str, jax.Array]
Pull = Callable[[jax.Array], tuple[Any]]


class Turn(NamedTuple):
    """What the updates of a step read: a minibatch, the key of dropout, which both players share, and numbers."""

    given: Given
    target: jax.Array
    dropout: jax.Array
    scalars: Mapping[str, Number]  # by config key


def generate(task: "Translation", network: Network, turn: Turn) -> tuple[jax.Array, Pull]:
    """Return the images that both players' updates read, and the function from their gradient to that of parameters.

    They are made once, since the generator is the costliest part of a step.
    """

    def of_batch(params: Any) -> jax.Array:
        def of_microbatch(given: Given, number: jax.Array) -> jax.Array:
            rngs = {"dropout": jax.random.fold_in(turn.dropout, number)}
            output: Any = task.generator.apply({"params": params}, given.inputs, train=True, rngs=rngs)
            return task.image(given, output)

        return joined(of_each(of_microbatch, turn.given, task.accumulate))

    return jax.vjp(of_batch, network.variables["params"])


def update_discriminator(
    task: "Translation", network: Network, turn: Turn, fake: jax.Array
) -> tuple[Network, Arrays, Arrays]:
    """Descend the discriminator's loss once. Returns the network, scalars to log, and checks."""

    def of_microbatch(params: Any, parts: Any, number: jax.Array) -> tuple[jax.Array, Arrays]:
        given, target, fake = parts
        part = Turn(given, target, jax.random.fold_in(turn.dropout, number), turn.scalars)
        return discriminator_loss(task, params, part, fake)

    gradient = jax.value_and_grad(of_microbatch, has_aux=True)
    parts = turn.given, turn.target, fake
    (value, logged), gradients = accumulated(gradient, network.variables["params"], parts, task.accumulate)
    return descend(task, "discriminator", network, turn, value, logged, gradients)


def update_generator(
    task: "Translation", network: Network, discriminator: Any, turn: Turn, fake: jax.Array, pull: Pull
) -> tuple[Network, Arrays, Arrays]:
    """Descend the generator's loss once, by what `generate` returned. Returns as `update_discriminator` does."""

    def of_batch(fake: jax.Array) -> tuple[jax.Array, Arrays]:
        def of_microbatch(parts: Any, _: jax.Array) -> tuple[jax.Array, Arrays]:
            given, target, fake = parts
            return generator_loss(task, discriminator, turn._replace(given=given, target=target), fake)

        each = of_each(of_microbatch, (turn.given, turn.target, fake), task.accumulate)
        return jax.tree.map(jnp.mean, each)

    (value, logged), slope = jax.value_and_grad(of_batch, has_aux=True)(fake)
    (gradients,) = pull(slope)
    return descend(task, "generator", network, turn, value, logged, gradients)


def descend(
    task: "Translation", player: str, network: Network, turn: Turn, value: jax.Array, logged: Arrays, gradients: Any
) -> tuple[Network, Arrays, Arrays]:
    """Apply a player's gradients. Returns its network, scalars to log, and checks."""
    optimizer = task.optimizer(player, turn.scalars)
    after = apply_gradients(network, gradients, network.variables["batch_stats"], optimizer)
    logged |= {
        f"loss/{player}": value,
        f"gradient_norm/{player}": optax.tree.norm(gradients),
        f"update_norm/{player}": update_norm(network, after),
    }
    return after, logged, finite(f"{player}/loss", value) | finite(f"{player}/gradient", gradients)


def discriminator_loss(task: "Translation", params: Any, turn: Turn, fake: jax.Array) -> tuple[jax.Array, Arrays]:
    """Return the objective and the penalties, weighted."""

    def critic(images: jax.Array) -> jax.Array:
        return judged(task, params, turn.given, images)

    real_logits, fake_logits = critic(turn.target), critic(fake)
    value = task.objective.discriminator(real_logits, fake_logits)
    for name in task.penalties:
        penalty = penalties.PENALTIES[name](critic, turn.dropout, turn.target, fake)
        value += turn.scalars[f"translation.{name}"] * penalty
    shown = jax.nn.sigmoid if task.objective.probabilities else jnp.asarray
    logits = {"real": real_logits, "fake": fake_logits}
    return task.discriminator_weight * value, {f"discriminator/{k}": jnp.mean(shown(x)) for k, x in logits.items()}


def generator_loss(task: "Translation", discriminator: Any, turn: Turn, fake: jax.Array) -> tuple[jax.Array, Arrays]:
    """Return the weighted sum of the losses that are on; the logged ones are without their weights."""
    found = {name: RECONSTRUCTION[name](fake, turn.target) for name in task.losses}
    if task.features is not None:
        maps = [task.features(task.degradation.to_rgb(x), task.features.unit_scales()) for x in (fake, turn.target)]
        each = [content_loss(maps[0][layer], maps[1][layer]) for layer in task.features.layers]
        found["perceptual"] = jnp.mean(jnp.stack(each))
    if task.discriminator is not None:
        trained = discriminator.variables["params"]
        real = judged(task, trained, turn.given, turn.target) if task.objective.relativistic else None
        found["adversarial"] = task.objective.generator(judged(task, trained, turn.given, fake), real)
    value = sum(turn.scalars[f"translation.{name}"] * loss for name, loss in found.items())
    return jnp.asarray(value), {f"loss/{name}": loss for name, loss in found.items()}


def judged(task: "Translation", params: Any, given: Given, images: jax.Array) -> jax.Array:
    """Return the discriminator's logits, normalised by the batch at hand."""
    assert task.discriminator is not None
    variables = {"params": params}
    logits, _ = task.discriminator.apply(variables, seen(task, given, images), train=True, mutable=["batch_stats"])
    assert isinstance(logits, jax.Array)
    return logits


def seen(task: "Translation", given: Given, images: jax.Array) -> jax.Array:
    """Return what the discriminator sees: the input beside the image, [B, H, W, c + C]."""
    if not task.conditional:
        return images
    beside = given.inputs if given.inputs.shape[1:3] == images.shape[1:3] else given.shown
    return jnp.concatenate([beside, images], axis=-1)
