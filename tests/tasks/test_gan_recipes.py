"""Recipes mean what their papers say: the traps that ../shared's reference and users' threads list, one by one."""

import dataclasses
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gormley_vision.augmentation.differentiable import augment
from gormley_vision.augmentation.policies import parsed
from gormley_vision.command_line import load_config_file
from gormley_vision.config import default_config, validate
from gormley_vision.errors import UserError
from gormley_vision.experiment import described, make_task
from gormley_vision.randomness import named_key
from gormley_vision.tasks.gan.adaptive import steered
from gormley_vision.tasks.networks import ema_decay
from gormley_vision.tasks.optimizers import make_optimizer
from gormley_vision.tasks.scalars import at
from gormley_vision.training.task import first_state

KEY = jax.random.key(7)
M = 4  # images of a minibatch


def published(name, **changes):
    """The task and config of a file in configs/, at its published size but for `changes`."""
    config = load_config_file(str(Path(__file__).parents[2] / "configs" / f"{name}.py"))
    config.update_from_flattened_dict(changes)
    validate(config.to_dict())
    return make_task(config.to_dict(), described(config, tuple("0123456789"), 50_000)), config


def tiny(k=1, **changes):
    """A tiny game of momentum SGD on 16 pixels."""
    config = default_config("gan")
    flat = {"data.image_size": 16, "data.batch_size": M, "generator.width": 2, "generator.latent_size": 3}
    flat |= {"discriminator.width": 2, "discriminator.norm": "none", "gan.discriminator_steps": k}
    for player in ("generator", "discriminator"):
        flat |= {f"{player}_optimizer.name": "momentum_sgd", f"{player}_optimizer.learning_rate": 0.1}
    config.update_from_flattened_dict(flat | changes)
    if config.gan.objective.startswith("relativistic"):
        k += 1
    batch = {
        "image": jax.random.randint(KEY, (k, M, 16, 16, 1), 0, 256).astype(jnp.uint8),
        "label": jax.random.randint(KEY, (k, M), 0, 3),
    }
    return make_task(config.to_dict(), described(config, tuple("abc"), 100)), batch


def stepped(gan, batch):
    """The first state, and what a step makes of it."""
    state = jax.jit(partial(first_state, gan))(KEY)
    return state, jax.jit(gan.train_step)(state, batch, KEY)


def calls_of(gan, shape, k):
    """(player, inputs' first axis) of every pass in a step, in order, and how many of the task's batch it reads."""
    calls = []

    def watch(call, args, kwargs, context):
        if context.module.path == () and context.method_name == "__call__":
            calls.append(
                (type(context.module).__module__.rpartition(".")[2], type(context.module).__name__, len(args[0]))
            )
        return call(*args, **kwargs)

    batch = {"image": jax.ShapeDtypeStruct((k, gan.batch_size, *shape), jnp.uint8)}
    batch["label"] = jax.ShapeDtypeStruct((k, gan.batch_size), jnp.int32)
    state = jax.eval_shape(partial(first_state, gan), KEY)
    with nn.intercept_methods(watch):
        jax.eval_shape(gan.train_step, state, batch, KEY)
    return [(name, count) for _, name, count in calls]


@pytest.mark.parametrize(("name", "penalised"), [("wgan_gp_cifar", 1), ("sngan_cifar", 0)])
def test_five_updates_of_64_images_then_one_with_128_fakes(name, penalised):
    gan, config = published(name)
    one = [("Generator", 64)] + [("Discriminator", 64)] * (2 + penalised)
    assert calls_of(gan, (32, 32, 3), 5) == one * 5 + [("Generator", 128), ("Discriminator", 128)]
    assert (gan.objective.discriminator.__name__.partition("_")[0]) == config.gan.objective
    assert gan.discriminator.pooling == ("mean" if penalised else "sum")
    assert gan.spectral == (not penalised)


def test_of_r3gan_both_players_meet_fresh_real_images():
    narrow = {"generator.width": 96, "discriminator.width": 96}  # the published width takes long to trace
    gan, _ = published("r3gan_cifar", **narrow)
    both = [("Generator", 512), *[("Discriminator", 512)] * 4]  # real, fake, and both again for R1 and R2
    last = [("Discriminator", 512), ("Generator", 512), ("Discriminator", 512)]
    assert calls_of(gan, (32, 32, 3), 2) == both + last


def test_numbers_of_r3gan_at_the_authors_images():
    """Theirs count 512 images a step, ours 1,024: half a cosine over 39,062 steps, then constant."""
    gan, _ = published("r3gan_cifar")
    expected = {
        "generator_optimizer.learning_rate": (2e-4, 5e-5),
        "discriminator_optimizer.beta2": (0.9, 0.99),
        "gan.r1": (0.05, 0.005),
        "gan.r2": (0.05, 0.005),
        "gan.augment_probability": (0, 0.55),
    }
    for steps, share in ((0, 0), (20_000_000 / 512 / 2, 0.5), (20_000_000 / 512, 1), (10**6, 1)):
        scalars = at(gan.scalars, jnp.float32(steps * gan.batch_size * gan.minibatches))
        for key, (first, last) in expected.items():
            assert float(scalars[key]) == pytest.approx(first + share * (last - first), rel=1e-4, abs=1e-9), (
                steps,
                key,
            )
    decay = ema_decay(jnp.float32(1e9), 1024, scalars["gan.ema_half_life"], gan.ema_ramp)
    assert float(decay) == pytest.approx(0.5 ** (512 / 5e6), rel=1e-6)
    assert float(at(gan.scalars, jnp.float32(0))["gan.ema_half_life"]) == 0


def test_rates_of_wgan_gp_and_sngan_fall_to_0_from_the_first_step():
    for name, steps in (("wgan_gp_cifar", 100_000), ("sngan_cifar", 50_000)):
        gan, _ = published(name)
        for step, share in ((0, 1), (steps // 2, 0.5), (steps, 0)):
            scalars = at(gan.scalars, jnp.float32(step * 5 * 64))
            assert float(scalars["generator_optimizer.learning_rate"]) == pytest.approx(2e-4 * share, abs=1e-10)
            assert scalars["discriminator_optimizer.beta2"] == 0.9


def test_rates_of_goodfellows_code():
    """0.1 / 1.000004^n after n updates, and half of that for a discriminator whose loss is twice theirs."""
    gan, _ = published("goodfellow2014_mnist")
    for n in (0, 1000, 500_000):
        scalars = at(gan.scalars, jnp.float32(n * 100))
        assert float(scalars["generator_optimizer.learning_rate"]) == pytest.approx(0.1 / 1.000004**n, rel=1e-4)
        assert float(scalars["discriminator_optimizer.learning_rate"]) == pytest.approx(0.05 / 1.000004**n, rel=1e-4)
    middle = at(gan.scalars, jnp.float32(125 * 50_000))
    assert float(middle["generator_optimizer.momentum"]) == pytest.approx(0.6)
    discriminator, generator = gan.phases
    assert generator.meets_previous
    assert (discriminator.noise, discriminator.minibatch) == (generator.noise, generator.minibatch)
    assert (gan.latent, gan.discriminator.input_dropout, gan.discriminator.dropout) == ("uniform", 0.2, 0.5)


def test_weights_of_goodfellows_nets_start_within_their_ranges():
    gan, _ = published("goodfellow2014_mnist")
    state = jax.jit(partial(first_state, gan))(KEY)
    for player, limit in ((state.generator, 0.05), (state.discriminator, 0.005)):
        for path, x in jax.tree_util.tree_leaves_with_path(player.variables["params"]):
            if "kernel" in str(path):
                assert 0.95 * limit < float(jnp.abs(x).max()) <= np.float32(limit)
                assert float(x.std()) == pytest.approx(limit / 3**0.5, rel=0.1)
            else:
                assert not x.any()


def test_dropout_acts_in_both_updates_with_draws_of_its_own():
    dense = {"discriminator.architecture": "dense", "generator.architecture": "dense", "discriminator.norm": "batch"}
    gan, batch = tiny(**dense, **{"discriminator.dropout": 0.5})
    without, _ = tiny(**dense)
    state, _ = stepped(gan, batch)
    for player in ("generator", "discriminator"):
        only = dataclasses.replace(without, phases=tuple(p for p in gan.phases if p.player == player))
        plain, _, _ = jax.jit(only.train_step)(state, batch, KEY)
        alone = dataclasses.replace(gan, phases=only.phases)
        dropped, _, _ = jax.jit(alone.train_step)(state, batch, KEY)
        differ = jax.tree.map(
            lambda a, b: bool((a != b).any()),
            getattr(plain, player).variables["params"],
            getattr(dropped, player).variables["params"],
        )
        assert any(jax.tree.leaves(differ)), player
    config = default_config("gan")
    config.update_from_flattened_dict({"accumulate": 2, **dense, "discriminator.dropout": 0.5})
    with pytest.raises(UserError, match=r"--config\.accumulate=1"):
        validate(config.to_dict())


def test_weights_of_wgan_stay_within_001():
    gan, batch = tiny(**{"gan.clip_weights": 0.01, "gan.objective": "wasserstein"})
    _, (after, *_) = stepped(gan, batch)
    found = jax.tree.leaves(after.discriminator.variables["params"])
    assert max(float(jnp.abs(x).max()) for x in found) == pytest.approx(0.01)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(after.generator.variables["params"])) > 0.02
    gan, config = published("wgan_mnist")
    assert (gan.clip_weights, gan.update_rules) == (0.01, {"generator": "rmsprop", "discriminator": "rmsprop"})
    assert config.gan.discriminator_steps == 5


def test_rmsprop_by_hand():
    """PyTorch's: v = 0.99 v + 0.01 g^2, and an update -rate g / (sqrt v + eps)."""
    rule = make_optimizer(name="rmsprop", learning_rate=0.1, momentum=0.0, beta2=0.99)
    state, v = rule.init(jnp.float32(0)), 0.0
    for g in (3.0, -1.0, 2.0):
        update, state = rule.update(jnp.float32(g), state)
        v = 0.99 * v + 0.01 * g * g
        assert float(update) == pytest.approx(-0.1 * g / (v**0.5 + 1e-8), rel=1e-5)


def test_r1_is_of_the_image_before_its_augmentation():
    """With the draws of the loss, through the transforms: a cutout's zeros have no gradient, a scale is in it."""
    policy = "saturation_scale,contrast_scale,translation,cutout"
    gan, batch = tiny(**{"gan.augment": policy, "gan.r1": 2.0, "gan.r2": 3.0})
    state, (_, metrics, _) = stepped(gan, batch)
    real = batch["image"][0].astype(jnp.float32) / 127.5 - 1
    noise = jax.random.normal(named_key(KEY, "noise/discriminator"), (M, 3))
    fake = gan.generator.apply(state.generator.variables, noise, None, train=True, mutable=["batch_stats"])[0]

    def half_square(stream, images, before):
        transform = partial(augment, named_key(KEY, f"augment/{stream}"), transforms=parsed(policy), probability=1.0)

        def total(x):
            return gan.discriminator.apply(
                state.discriminator.variables, transform(x) if before else x, None, train=True
            ).sum()

        slope = jax.grad(total)(images if before else transform(images))
        return float(jnp.sum(slope**2)) / M / 2

    assert float(metrics["penalty/r1"]) == pytest.approx(2 * half_square("real", real, True), rel=1e-4)
    assert float(metrics["penalty/r2"]) == pytest.approx(3 * half_square("fake", fake, True), rel=1e-4)
    assert float(metrics["penalty/r1"]) != pytest.approx(2 * half_square("real", real, False), rel=0.05)


def test_real_and_fake_images_are_augmented_in_both_updates():
    """With all brightness and contrast gone, no image says anything: the gradients of both players vanish."""
    gan, batch = tiny(**{"gan.augment": "cutout"})
    seen = []
    import gormley_vision.tasks.gan.updates as updates

    def blank(key, images, transforms, probability):
        seen.append(jax.random.key_data(key).tobytes() if not isinstance(key, jax.core.Tracer) else None)
        return 0 * images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updates, "augment", blank)
        state = first_state(gan, KEY)
        _, metrics, _ = gan.train_step(state, batch, KEY)
    assert len(seen) == 3 == len(set(seen))  # real and fake for one, fake for the other, each with its own draws
    assert float(metrics["gradient_norm/generator"]) == 0
    assert float(metrics["discriminator/real"]) == float(metrics["discriminator/fake"])


def test_an_auxiliary_classifiers_errors_are_in_both_losses():
    changes = {"gan.conditional": True, "discriminator.conditioning": "classifier"}
    weights = {"gan.classifier_weight": 0.5, "gan.generator_classifier_weight": 0.25}
    changes |= {"gan.fake_classifier_weight": 0.75}
    gan, batch = tiny(**changes, **weights)
    plain, _ = tiny(**changes, **dict.fromkeys(weights, 0.0))
    state, (_, with_classes, _) = stepped(gan, batch)
    _, without, _ = jax.jit(plain.train_step)(state, batch, KEY)
    labels = batch["label"][0]
    real = batch["image"][0].astype(jnp.float32) / 127.5 - 1

    def error(images):
        _, classes = gan.discriminator.apply(state.discriminator.variables, images, labels, train=True)
        return float(optax.softmax_cross_entropy_with_integer_labels(classes, labels).mean())

    def fakes(stream):
        noise = jax.random.normal(named_key(KEY, stream), (M, 3))
        return gan.generator.apply(state.generator.variables, noise, labels, train=True, mutable=["batch_stats"])[0]

    added = float(with_classes["loss/discriminator"] - without["loss/discriminator"])
    assert added == pytest.approx(0.5 * (error(real) + 0.75 * error(fakes("noise/discriminator"))), rel=1e-3)
    alone = dataclasses.replace(gan, phases=gan.phases[1:]), dataclasses.replace(plain, phases=plain.phases[1:])
    losses = [float(jax.jit(g.train_step)(state, batch, KEY)[1]["loss/generator"]) for g in alone]
    assert losses[0] - losses[1] == pytest.approx(0.25 * error(fakes("noise/generator")), rel=1e-3)


def test_labels_of_more_fakes_are_those_of_the_minibatch():
    """Each label twice: the average of a step's classes is the same as with one fake for each."""
    gan, batch = tiny(**{"gan.conditional": True, "gan.generator_factor": 3})
    seen = []

    def watch(call, args, kwargs, context):
        if context.module.path == () and context.method_name == "__call__" and len(args[0]) == 3 * M:
            seen.append(np.asarray(args[1]))
        return call(*args, **kwargs)

    state = first_state(gan, KEY)
    with nn.intercept_methods(watch), jax.disable_jit():
        dataclasses.replace(gan, phases=gan.phases[1:]).train_step(state, batch, KEY)
    assert [labels.tolist() for labels in seen] == [np.repeat(np.asarray(batch["label"][0]), 3).tolist()] * 2


def test_ada_by_hand():
    """Target 0.6: signs of 0.8 raise the probability by 4 steps' share of the way, of 0.5 lower it; never below 0."""
    controller = {"probability": jnp.float32(0), "signs": jnp.float32(0)}
    seen = []
    for step, sign in enumerate([0.8] * 8 + [0.5] * 12):
        controller = steered(controller, jnp.float32(sign), jnp.int32(step), 0.6, 64 / 500_000)
        seen.append(float(controller["probability"]))
    up = 4 * 64 / 500_000
    expected = [0] * 3 + [up] * 4 + [2 * up] * 4 + [up] * 4 + [0] * 5
    np.testing.assert_allclose(seen, expected, atol=1e-9)


def test_a_steered_probability_is_part_of_the_state():
    gan, batch = tiny(**{"gan.augment": "cutout", "gan.augment_target": 0.6, "gan.augment_speed": "64 images"})
    state = jax.jit(partial(first_state, gan))(KEY)
    step = jax.jit(gan.train_step)
    for _ in range(4):
        state, _, _ = step(state, batch, KEY)
    moved = float(state.augmentation["probability"])
    assert moved in (0.0, pytest.approx(4 * M / 64))  # up if D knows the four images already, else still 0
    state = state.replace(augmentation={"probability": jnp.float32(0.75), "signs": jnp.float32(0)})
    assert float(step(state, batch, KEY)[1]["augment/probability"]) == 0.75


def test_scheduled_numbers_are_those_of_the_images_before_the_step():
    gan, batch = tiny(**{"gan.schedules": "discriminator_optimizer.learning_rate = 0: 0, 8: 1 linear"})
    state = jax.jit(partial(first_state, gan))(KEY)
    step, seen = jax.jit(gan.train_step), []
    for _ in range(4):
        before, (state, metrics, _) = state, step(state, batch, KEY)
        seen.append(float(metrics["schedule/discriminator_optimizer.learning_rate"]))
        still = jax.tree.map(
            lambda a, b: bool((a == b).all()), before.discriminator.variables, state.discriminator.variables
        )
        assert all(jax.tree.leaves(still)) == (seen[-1] == 0)
    assert seen == [0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"generator.architecture": "resnet", "data.image_size": 28}, "data.image_size=32"),
        ({"generator.architecture": "r3gan", "generator.width": 12, "data.image_size": 32}, "generator.width=16"),
        ({"discriminator.architecture": "vit", "discriminator.patch_size": 5}, "patch_size=4"),
        ({"discriminator.architecture": "vit", "discriminator.width": 30}, "does not divide into 4 heads"),
        ({"gan.example": "vector"}, "generator.architecture=dense"),
        ({"gan.difference": 0.01}, "gan.r1=1.0"),
        ({"gan.generator_factor": 2, "gan.shared_fakes": True}, "gan.generator_factor=1"),
        ({"gan.augment": "diffaugmentation"}, "diffaugment"),
        ({"gan.augment_target": 0.6}, "gan.augment"),
        ({"gan.augment": "blit", "gan.augment_target": 0.6, "gan.augment_probability": 0.3}, "gan.augment_target=0"),
        ({"gan.augment": "hue,saturation"}, "changes nothing of these images"),
        ({"gan.augment": "blit", "gan.augment_probability": 0.0}, "augments nothing"),
        (
            {
                "discriminator.architecture": "patchgan",
                "discriminator.receptive_field": 70,
                "data.image_size": 20,
            },
            "receptive_field=34",
        ),
        ({"discriminator.pieces": 3}, "discriminator.architecture=dense"),
    ],
)
def test_what_contradicts_itself_is_refused_with_what_to_type(changes, said):
    config = default_config("gan")
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        validate(config.to_dict())
