"""One update of one player: its loss, and what changes of its state. The other player is fixed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gormley_vision.losses import penalties
from gormley_vision.losses.reconstruction import RECONSTRUCTION
from gormley_vision.losses.style import content_loss
from gormley_vision.tasks.accumulation import accumulated
from gormley_vision.tasks.image_to_image.degradations import Given
from gormley_vision.tasks.networks import Network, apply_gradients, finite, update_norm
from gormley_vision.tasks.scalars import Number

if TYPE_CHECKING:
    from gormley_vision.tasks.image_to_image.task import Translation

Arrays = dict[str, jax.Array]


class Turn(NamedTuple):
    """What the updates of a step read: a minibatch, the key of dropout, which both players share, and numbers."""

    given: Given
    target: jax.Array
    dropout: jax.Array
    scalars: Mapping[str, Number]  # by config key


def update(
    task: "Translation", player: str, network: Network, opponent: Any, turn: Turn
) -> tuple[Network, Arrays, Arrays]:
    """Descend a player's loss once, the mean over microbatches. Returns its network, scalars to log, and checks."""
    loss = {"generator": generator_loss, "discriminator": discriminator_loss}[player]

    def of_microbatch(params: Any, parts: Any, number: jax.Array) -> tuple[jax.Array, Arrays]:
        given, target = parts
        part = Turn(given, target, jax.random.fold_in(turn.dropout, number), turn.scalars)
        return loss(task, params, opponent, part)

    gradient = jax.value_and_grad(of_microbatch, has_aux=True)
    parts = turn.given, turn.target
    (value, logged), gradients = accumulated(gradient, network.variables["params"], parts, task.accumulate)
    batch_stats, optimizer = network.variables["batch_stats"], task.optimizer(player, turn.scalars)
    after = apply_gradients(network, gradients, batch_stats, optimizer)
    logged |= {
        f"loss/{player}": value,
        f"gradient_norm/{player}": optax.tree.norm(gradients),
        f"update_norm/{player}": update_norm(network, after),
    }
    return after, logged, finite(f"{player}/loss", value) | finite(f"{player}/gradient", gradients)


def discriminator_loss(task: "Translation", params: Any, generator: Network, turn: Turn) -> tuple[jax.Array, Arrays]:
    """Return the objective and the penalties, weighted."""
    fake = jax.lax.stop_gradient(generated(task, generator.variables["params"], turn))

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


def generator_loss(task: "Translation", params: Any, discriminator: Any, turn: Turn) -> tuple[jax.Array, Arrays]:
    """Return the weighted sum of the losses that are on; the logged ones are without their weights."""
    fake = generated(task, params, turn)
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


def generated(task: "Translation", params: Any, turn: Turn) -> jax.Array:
    """Return the generator's images in training, in the degradation's colour space."""
    output: Any = task.generator.apply(
        {"params": params}, turn.given.inputs, train=True, rngs={"dropout": turn.dropout}
    )
    return task.degradation.image(turn.given, output)


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
