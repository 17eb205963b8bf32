"""The alternation: who moves when, on which noise and images, against a slow reference written here."""

import dataclasses
import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import default_config, validate
from gormley_vision.errors import UserError
from gormley_vision.experiment import described, make_task
from gormley_vision.randomness import named_key
from gormley_vision.tasks.gan.updates import Turn, update_discriminator
from gormley_vision.tasks.networks import ema_decay, moving_average
from gormley_vision.tasks.scalars import at
from gormley_vision.training.task import first_state

KEY = jax.random.key(7)
M = 4  # images of a minibatch


def make_gan(k=1, **changes):
    """A tiny DCGAN with momentum SGD, whose parameters show a gradient as it is."""
    config = default_config("gan")
    config.update_from_flattened_dict(
        {
            "data.image_size": 16,
            "data.batch_size": M,
            "generator.width": 2,
            "generator.latent_size": 3,
            "discriminator.width": 2,
            "gan.discriminator_steps": k,
            "generator_optimizer.name": "momentum_sgd",
            "discriminator_optimizer.name": "momentum_sgd",
            "generator_optimizer.learning_rate": 0.1,
            "discriminator_optimizer.learning_rate": 0.2,
            **changes,
        }
    )
    return make_task(config.to_dict(), described(config, tuple("abc"), 100))


def make_batch(k, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (k, M, 16, 16, 1), np.uint8)),
        "label": jnp.asarray(rng.integers(0, 3, (k, M), np.int32)),
    }


def identical(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def close(a, b):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6), a, b)


@pytest.fixture(scope="module")
def game():
    """A GAN, a state after two steps (so that momenta are not zero), and its jitted halves."""
    gan = make_gan()
    state = jax.jit(partial(first_state, gan))(KEY)
    step = jax.jit(gan.train_step)
    for seed in range(2):
        state, _, _ = step(state, make_batch(1, seed), KEY)
    return gan, state, step


def test_each_phase_moves_its_own_player_alone(game):
    """Run one phase at a time: everything of the other player is bit-identical, optimizer and statistics included."""
    gan, state, _ = game
    for phase in gan.phases:
        other = "generator" if phase.player == "discriminator" else "discriminator"
        after, _, _ = jax.jit(dataclasses.replace(gan, phases=(phase,)).train_step)(state, make_batch(1), KEY)
        assert identical(getattr(after, other), getattr(state, other))
        moved = getattr(after, phase.player)
        before = getattr(state, phase.player)
        assert not identical(moved.variables["params"], before.variables["params"])
        assert not identical(moved.variables["batch_stats"], before.variables["batch_stats"])
        assert not identical(moved.opt_state, before.opt_state)
        assert int(moved.updates) == int(before.updates) + 1
        if phase.player == "discriminator":  # the average of an unmoved generator moves towards it only
            decay = ema_decay(jnp.float32(3 * M), M, gan.scalars["gan.ema_half_life"], gan.ema_ramp)
            close(after.ema, moving_average(state.ema, state.generator.variables, decay))


@pytest.mark.parametrize(("player", "rule"), [("generator", "adam"), ("discriminator", "momentum_sgd")])
def test_learning_rate_zero_freezes_a_player(player, rule):
    gan = make_gan(**{f"{player}_optimizer.learning_rate": 0.0, f"{player}_optimizer.name": rule})
    state = jax.jit(partial(first_state, gan))(KEY)
    after, _, _ = jax.jit(gan.train_step)(state, make_batch(1), KEY)
    other = {"generator": "discriminator", "discriminator": "generator"}[player]
    assert identical(getattr(after, player).variables["params"], getattr(state, player).variables["params"])
    assert not identical(getattr(after, other).variables["params"], getattr(state, other).variables["params"])


# ---------------------------------------------------------------------------------------------------------
# A slow reference of Algorithm 1: two functions, written from the paper, sharing only the networks.


def naive_discriminator_loss(gan, d, *, g, images, noise, labels, paired):
    """-1/m sum[log D(x) + log(1 - D(G(z)))] with sigmoid and log as written on the slide; or RpGAN's."""
    fakes = gan.generator.apply(g, noise, labels, train=True, mutable=["batch_stats"])[0]
    real, moved = gan.discriminator.apply(d, images, labels, train=True, mutable=["batch_stats"])
    fake, moved = gan.discriminator.apply({**d, **moved}, fakes, labels, train=True, mutable=["batch_stats"])
    value = -jnp.mean(jnp.log(nn.sigmoid(real)) + jnp.log(1 - nn.sigmoid(fake)))
    return -jnp.mean(jnp.log(nn.sigmoid(real - fake))) if paired else value, moved["batch_stats"]


def naive_generator_loss(gan, g, d, noise, labels, saturating, images):
    fakes, moved = gan.generator.apply(g, noise, labels, train=True, mutable=["batch_stats"])
    logits = gan.discriminator.apply(d, fakes, labels, train=True, mutable=["batch_stats"])[0]
    if images is not None:  # RpGAN's
        logits -= gan.discriminator.apply(d, images, labels, train=True, mutable=["batch_stats"])[0]
    probability = nn.sigmoid(logits)
    value = jnp.mean(jnp.log(1 - probability)) if saturating else -jnp.mean(jnp.log(probability))
    return value, moved["batch_stats"]


def reference_step(gan, state, batch, *, k, shared, simultaneous, saturating, conditional, paired):
    """One iteration, update by update; momentum SGD written out: v <- 0.5 v + g, w <- w - lr v."""

    def descend(player, loss, rate):
        params, velocity = player
        (_, stats), gradient = jax.value_and_grad(
            lambda p: loss({"params": p, "batch_stats": params["batch_stats"]}), has_aux=True
        )(params["params"])
        velocity = jax.tree.map(lambda v, g: 0.5 * v + g, velocity, gradient)
        weights = jax.tree.map(lambda w, v: w - rate * v, params["params"], velocity)
        return {"params": weights, "batch_stats": stats}, velocity

    d = state.discriminator.variables, state.discriminator.opt_state[0].trace
    g = state.generator.variables, state.generator.opt_state[0].trace
    images = batch["image"].astype(jnp.float32) / 255 * 2 - 1
    for i in range(k):
        labels = batch["label"][i] if conditional else None
        noise = jax.random.normal(named_key(KEY, "noise/discriminator", state.step, i), (M, 3))
        before, d = (
            d,
            descend(
                d,
                partial(
                    naive_discriminator_loss, gan, g=g[0], images=images[i], noise=noise, labels=labels, paired=paired
                ),
                0.2,
            ),
        )
    if not shared:
        noise = jax.random.normal(named_key(KEY, "noise/generator", state.step, k if paired else k - 1), (M, 3))
    opponent, met = (before if simultaneous else d)[0], images[k] if paired else None
    if paired and conditional:
        labels = batch["label"][k]
    g = descend(g, lambda v: naive_generator_loss(gan, v, opponent, noise, labels, saturating, met), 0.1)
    return d, g


OPTIONS = [
    {"k": 2},
    {"k": 2, "simultaneous": True, "shared": True, "saturating": True},
    {"k": 1, "conditional": True},
    {"k": 1, "conditional": True, "paired": True},
]
FEWER_AT_A_TIME = [{"k": 1}, {"k": 3}, {"k": 2, "shared": True}, {"k": 1, "simultaneous": True}]


@pytest.mark.parametrize(
    "options",
    OPTIONS + [pytest.param(x, marks=pytest.mark.slow) for x in FEWER_AT_A_TIME],
    ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()),
)
def test_a_step_equals_the_slow_reference(options):
    names = "shared", "simultaneous", "saturating", "conditional", "paired"
    chosen = dict.fromkeys(names, False) | options
    gan = make_gan(
        chosen["k"],
        **{
            "gan.shared_fakes": chosen["shared"],
            "gan.simultaneous": chosen["simultaneous"],
            "gan.objective": "relativistic_paired"
            if chosen["paired"]
            else "saturating"
            if chosen["saturating"]
            else "non_saturating",
            "gan.conditional": chosen["conditional"],
        },
    )
    state, step = jax.jit(partial(first_state, gan))(KEY), jax.jit(gan.train_step)
    slow = jax.jit(partial(reference_step, gan, **chosen))
    for seed in range(2):  # the second step has momentum and moved statistics
        batch = make_batch(chosen["k"] + chosen["paired"], seed)
        d, g = slow(state, batch)
        state, _, _ = step(state, batch, KEY)
        close((state.discriminator.variables, state.discriminator.opt_state[0].trace), d)
        close((state.generator.variables, state.generator.opt_state[0].trace), g)
        counts = int(state.step), int(state.discriminator.updates), int(state.generator.updates)
        assert counts == (seed + 1, (seed + 1) * chosen["k"], seed + 1)


def test_the_options_differ_from_each_other(game):
    """What the parity test cannot see: an option that changes nothing."""
    _, state, step = game
    results = [step(state, make_batch(1), KEY)[0].generator.variables["params"]]
    for changes in (
        {"gan.shared_fakes": True},
        {"gan.simultaneous": True},
        {"gan.objective": "saturating"},
    ):
        after, _, _ = jax.jit(make_gan(**changes).train_step)(state, make_batch(1), KEY)
        results.append(after.generator.variables["params"])
    assert not any(identical(a, b) for a, b in itertools.combinations(results, 2))


# ---------------------------------------------------------------------------------------------------------
# Penalties.


@pytest.mark.parametrize("architecture", ["dcgan", pytest.param("patchgan", marks=pytest.mark.slow)])
def test_a_penalty_adds_its_gradient_and_nothing_else(architecture):
    """One step with momentum SGD: weights differ by the rate times the gradient of R1 + R2, written anew."""
    changes = {"discriminator.architecture": architecture}
    changes |= {"discriminator.receptive_field": 16} if architecture == "patchgan" else {}
    plain, punished = make_gan(1, **changes), make_gan(1, **changes, **{"gan.r1": 0.7, "gan.r2": 0.3})
    state, batch = jax.jit(partial(first_state, plain))(KEY), make_batch(1)
    after, (more, metrics, _) = (jax.jit(gan.train_step)(state, batch, KEY) for gan in (plain, punished))
    after = after[0]
    real = batch["image"][0].astype(jnp.float32) / 127.5 - 1
    noise = jax.random.normal(named_key(KEY, "noise/discriminator", 0, 0), (M, 3))
    g, d = state.generator.variables, state.discriminator.variables
    fake = plain.generator.apply(g, noise, None, train=True, mutable=["batch_stats"])[0]

    def penalty(params):
        def half_square(images):
            apply = lambda x: plain.discriminator.apply(  # noqa: E731
                {**d, "params": params}, x, None, train=True, mutable=["batch_stats"]
            )[0]
            logits, back = jax.vjp(apply, images)
            (slope,) = back(jnp.full(logits.shape, M / logits.size))
            return jnp.sum(slope**2) / M / 2

        return 0.7 * half_square(real) + 0.3 * half_square(fake)

    value, gradient = jax.jit(jax.value_and_grad(penalty))(d["params"])
    np.testing.assert_allclose(metrics["penalty/r1"] + metrics["penalty/r2"], value, rtol=1e-4)
    expected = jax.tree.map(lambda w, x: w - 0.2 * x, after.discriminator.variables["params"], gradient)
    close(more.discriminator.variables["params"], expected)
    assert identical(more.discriminator.variables["batch_stats"], after.discriminator.variables["batch_stats"])


def test_a_lazy_penalty_takes_turns_with_all_its_weight():
    often, lazy = make_gan(1, **{"gan.r1": 1.0}), make_gan(1, **{"gan.r1": 1.0, "gan.penalty_every": 3})
    state, batch = jax.jit(partial(first_state, often))(KEY), make_batch(1)
    step, values = jax.jit(lazy.train_step), []
    first = float(jax.jit(often.train_step)(state, batch, KEY)[1]["penalty/r1"])
    for _ in range(4):
        state, metrics, _ = step(state, batch, KEY)
        values.append(float(metrics["penalty/r1"]))
    assert values[0] == pytest.approx(3 * first, rel=1e-5)
    assert values[1:3] == [0, 0]
    assert values[3] > 0


def test_penalties_in_microbatches_are_those_of_the_batch():
    options = {"gan.r1": 1.0, "gan.gradient_penalty": 1.0, "discriminator.architecture": "patchgan"}
    options["discriminator.receptive_field"] = 16
    one, two = make_gan(1, **options), make_gan(1, **options, accumulate=2)
    state, batch = jax.jit(partial(first_state, one))(KEY), make_batch(1)
    results = [jax.jit(gan.train_step)(state, batch, KEY) for gan in (one, two)]
    for name in ("penalty/r1", "penalty/gradient_penalty"):
        np.testing.assert_allclose(results[0][1][name], results[1][1][name], rtol=1e-4)
    close(results[0][0].discriminator.variables["params"], results[1][0].discriminator.variables["params"])


def test_an_interval_needs_a_penalty():
    config = default_config("gan")
    config.gan.penalty_every = 4
    with pytest.raises(UserError, match=r"penalty_every needs a penalty, as in --config\.gan\.r1"):
        validate(config.to_dict())


# ---------------------------------------------------------------------------------------------------------
# The average, the randomness, the flips.


def test_decay_of_the_average_by_hand():
    # Half-life 1000 images, 100 an update: after 10 updates half is left. The ramp allows 0.05 of what was seen.
    assert float(ema_decay(jnp.float32(1e6), 100, 1000.0, 0.05)) ** 10 == pytest.approx(0.5, rel=1e-5)
    assert float(ema_decay(jnp.float32(2000), 100, 1000.0, 0.05)) == pytest.approx(0.5, rel=1e-5)
    assert float(ema_decay(jnp.float32(1e6), 100, 0.0, 0.05)) == 0.0


def test_the_average_follows_parameters_and_running_statistics(game):
    gan, state, step = game
    after, _, _ = step(state, make_batch(1, 5), KEY)
    decay = 0.5 ** (M / min(gan.scalars["gan.ema_half_life"], 0.05 * 3 * M))
    expected = jax.tree.map(
        lambda a, c: decay * np.asarray(a) + (1 - decay) * np.asarray(c), state.ema, after.generator.variables
    )
    close(after.ema, expected)
    assert set(after.ema) == {"params", "batch_stats"}


def test_noise_is_fresh_in_every_phase_and_step():
    gan = make_gan(3)
    names = [(phase.noise, phase.minibatch) for phase in gan.phases]
    keys = {jax.random.key_data(named_key(KEY, name, t, i)).tobytes() for t in range(3) for name, i in names}
    assert len(names) == 4
    assert len(keys) == 12


def test_real_and_fake_images_are_normalised_apart(game):
    """Were they normalised together, the real images' logits would depend on the fakes."""
    gan, state, _ = game
    images = jax.random.uniform(KEY, (M, 16, 16, 1), minval=-1, maxval=1)

    @jax.jit
    def real_logit(noise):
        turn = Turn(images, None, noise, partial(named_key, KEY), at(gan.scalars, jnp.float32(0)), 1.0, jnp.int32(0))
        return update_discriminator(gan, state.discriminator, state.generator.variables, turn)[2]["discriminator/real"]

    logged = [real_logit(noise) for noise in (jnp.zeros((M, 3)), 3 * jax.random.normal(KEY, (M, 3)))]
    assert logged[0] == logged[1]


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"gan.gradient_penalty": 10.0}, True),
        ({"gan.gradient_penalty": 10.0, "discriminator.norm": "none"}, False),
        ({"gan.r1": 1.0, "discriminator.architecture": "resnet"}, False),
        ({}, False),
    ],
)
def test_a_penalty_through_batch_norm_is_warned_of(changes, warned, caplog):
    make_gan(**changes)
    assert ("discriminator.norm=batch" in caplog.text) == warned
