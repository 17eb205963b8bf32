"""One update of one player: its loss, penalties, and what changes of its state. The other player is fixed."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gormley_vision.augmentation.differentiable import augment
from gormley_vision.losses.classification import softmax_cross_entropy
from gormley_vision.tasks.accumulation import run_in_microbatches
from gormley_vision.tasks.gan import spectral_norm
from gormley_vision.tasks.networks import Network, Variables, apply_gradients, update_norm
from gormley_vision.tasks.scalars import Number

if TYPE_CHECKING:
    from gormley_vision.tasks.gan.task import GAN

Metrics = dict[str, jax.Array]


class Turn(NamedTuple):
    """What one update reads: a minibatch, noise, keys of random streams by name, and the step's numbers."""

    real: jax.Array | None  # images in [-1, 1], or vectors; None where the objective does not read them
    labels: jax.Array | None
    noise: jax.Array
    draw: Callable[[str], jax.Array]
    scalars: Mapping[str, Number]  # by config key
    augment_probability: Number
    step: jax.Array


def update_discriminator(
    gan: "GAN", player: Network, generator: Variables, turn: Turn
) -> tuple[Network, Any, Metrics, jax.Array]:
    """Descend the discriminator's loss and penalties once; also returns the mean sign of its logits of real images."""
    assert turn.real is not None
    real, (fake, _) = turn.real, _run(gan, gan.generator, generator, turn.noise, turn.labels)
    spectral = _iterated(gan, player.variables)

    def loss(params):
        variables = effective(gan, {**player.variables, "params": params, **spectral})

        def passed(stream: str, images: jax.Array) -> tuple[Any, Any]:
            images = _augmented(gan, turn, stream, images)
            key = turn.draw(f"dropout/{stream}")
            return _run(gan, gan.discriminator, variables, images, turn.labels, key)

        (real_logits, real_classes), batch_stats = passed("real", real)
        variables = {**variables, "batch_stats": batch_stats}
        (fake_logits, fake_classes), batch_stats = passed("fake", fake)
        critics = {stream: lambda images, stream=stream: passed(stream, images)[0][0] for stream in ("real", "fake")}
        parts = _penalties(gan, critics, turn, real, fake)
        if real_classes is not None:
            errors = _class_error(real_classes, turn.labels)
            errors += _class_error(fake_classes, turn.labels) * turn.scalars["gan.fake_classifier_weight"]
            parts["loss/classes"] = errors * turn.scalars["gan.classifier_weight"]
        value = gan.objective.discriminator(real_logits, fake_logits)
        return value + sum(parts.values()), (real_logits, fake_logits, batch_stats, parts)

    (value, aux), gradients = jax.value_and_grad(loss, has_aux=True)(player.variables["params"])
    real_logits, fake_logits, batch_stats, parts = aux
    shown = jax.nn.sigmoid if gan.objective.probabilities else jnp.asarray
    logged = {
        "loss/discriminator": value,
        "discriminator/real": jnp.mean(shown(real_logits)),
        "discriminator/fake": jnp.mean(shown(fake_logits)),
        "gradient_norm/discriminator": optax.tree.norm(gradients),
        **parts,
    }
    optimizer = gan.optimizer("discriminator", turn.scalars)
    after = apply_gradients(player, gradients, batch_stats, optimizer)
    params = after.variables["params"]
    if gan.clip_weights:
        params = jax.tree.map(lambda x: jnp.clip(x, -gan.clip_weights, gan.clip_weights), params)
    variables = {**after.variables, "params": params, **spectral}
    after = Network(variables, after.opt_state, after.updates)
    logged["update_norm/discriminator"] = update_norm(player, after)
    return after, gradients, logged, jnp.mean(jnp.sign(real_logits))


def update_generator(gan: "GAN", player: Network, discriminator: Variables, turn: Turn) -> tuple[Network, Any, Metrics]:
    """Descend the generator's loss once; the discriminator is fixed, statistics and power iteration included."""
    labels = turn.labels  # each label has as many fakes, side by side so that they stay on its device
    if labels is not None:
        labels = jnp.repeat(labels, len(turn.noise) // len(labels))
    opponent = effective(gan, discriminator)

    def judged(stream: str, images: jax.Array, labels: jax.Array | None) -> Any:
        images = _augmented(gan, turn, stream, images)
        key = turn.draw(f"dropout/{stream}")
        return _run(gan, gan.discriminator, opponent, images, labels, key)[0]

    def loss(params):
        fake, batch_stats = _run(gan, gan.generator, {**player.variables, "params": params}, turn.noise, labels)
        fake_logits, classes = judged("generator", fake, labels)
        value = gan.objective.generator(fake_logits, real_logits)
        if classes is not None:
            value += _class_error(classes, labels) * turn.scalars["gan.generator_classifier_weight"]
        return value, batch_stats

    real_logits = None if turn.real is None else judged("generator/real", turn.real, turn.labels)[0]
    (value, batch_stats), gradients = jax.value_and_grad(loss, has_aux=True)(player.variables["params"])
    logged = {"loss/generator": value, "gradient_norm/generator": optax.tree.norm(gradients)}
    after = apply_gradients(player, gradients, batch_stats, gan.optimizer("generator", turn.scalars))
    logged["update_norm/generator"] = update_norm(player, after)
    return after, gradients, logged


def _penalties(gan: "GAN", critics: Mapping[str, Callable], turn: Turn, real: jax.Array, fake: jax.Array) -> Metrics:
    """Return each penalty with its weight, 0 in steps that are not its turn.

    Gradients are with respect to images before their augmentation (Huang et al. 2025, R3GAN), which is that of the
    loss. With an interval the weight is as many times as large (Karras et al. 2019, arXiv:1912.04958, appendix B).
    """
    found = {}
    for number, (kind, function) in enumerate(gan.penalties.items()):
        key = jax.random.fold_in(turn.draw("penalty"), number)
        strength = turn.scalars[f"gan.{kind}"] * gan.penalty_every
        critic = critics["fake" if kind == "r2" else "real"]

        def penalty(function=function, critic=critic, key=key, strength=strength) -> jax.Array:
            return strength * function(critic, key, real, fake)

        is_turn = turn.step % gan.penalty_every == 0
        lazy = gan.penalty_every > 1
        found[f"penalty/{kind}"] = jax.lax.cond(is_turn, penalty, lambda: jnp.zeros(())) if lazy else penalty()
    return found


def _iterated(gan: "GAN", variables: Variables) -> dict[str, Any]:
    """Return {'spectral': its vectors after one power iteration}; {} without spectral normalisation."""
    if "spectral" not in variables:
        return {}
    return {"spectral": spectral_norm.iterated(variables["params"], gan.matrices, variables["spectral"])}


def effective(gan: "GAN", variables: Variables) -> Variables:
    """Return the discriminator's variables as its passes use them: divided by singular values, if so."""
    if "spectral" not in variables:
        return variables
    params = spectral_norm.normalized(variables["params"], gan.matrices, variables["spectral"])
    return {"params": params, "batch_stats": variables["batch_stats"]}


def _class_error(classes: jax.Array, labels: jax.Array | None) -> jax.Array:
    assert labels is not None
    return jnp.mean(softmax_cross_entropy(classes, jax.nn.one_hot(labels, classes.shape[-1])))


def _augmented(gan: "GAN", turn: Turn, stream: str, images: jax.Array) -> jax.Array:
    if not gan.augment:
        return images
    return augment(turn.draw(f"augment/{stream}"), images, gan.augment, turn.augment_probability)


def _run(
    gan: "GAN",
    module: nn.Module,
    variables: Variables,
    inputs: jax.Array,
    labels: jax.Array | None,
    dropout: jax.Array | None = None,
) -> tuple[Any, Any]:
    """Apply a player in training mode. Returns its output and its updated running statistics.

    A discriminator's output is (logits, logits of classes or None).
    """
    if gan.accumulate > 1:
        outputs, batch_stats = run_in_microbatches(module, variables, inputs, labels, gan.accumulate)
    else:
        rngs = {} if dropout is None else {"dropout": dropout}
        outputs, updated = module.apply(variables, inputs, labels, train=True, mutable=["batch_stats"], rngs=rngs)
        batch_stats = updated.get("batch_stats", {})
    if module is gan.discriminator and not isinstance(outputs, tuple):
        outputs = outputs, None
    return outputs, batch_stats
