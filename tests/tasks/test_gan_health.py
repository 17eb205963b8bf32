"""The figures of a GAN's health, by NumPy and by hand; its rules on made-up figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import default_config
from gormley_vision.experiment import described, make_task
from gormley_vision.health import Monitor
from gormley_vision.tasks.gan.health import NEAR, RULES
from gormley_vision.training.task import Examined, first_state

COUNT = 24


def gan(**changes):
    config = default_config("gan")
    config.data.update(source="fake", image_size=16, batch_size=8)
    config.generator.update(width=4, latent_size=5)
    config.discriminator.update(width=4, norm="none")
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    names = tuple("abc") if config.gan.conditional else ()
    return make_task(config.to_dict(), described(config.to_dict(), names, 100))


def examples(seed, **more):
    images = np.random.default_rng(seed).integers(0, 256, (COUNT, 16, 16, 1), np.uint8)
    return {"image": jnp.asarray(images), **more}


def figures(task, state, real, held_out):
    return {name: float(x) for name, x in jax.jit(task.examine)(state, jax.random.key(3), real, held_out).items()}


def plain_distances(a, b):
    return np.array([[np.linalg.norm(np.float64(x) - y) for y in b] for x in a])


def test_they_are_those_of_numpy():
    task = gan()
    assert isinstance(task, Examined)
    state = first_state(task, jax.random.key(0))
    real, held_out = examples(0), examples(1)
    fakes = {}

    def catch(variables, noise, labels=None):
        made = type(task).generate(task, variables, noise, labels)
        jax.debug.callback(lambda x: fakes.update(x=np.asarray(x)), made)
        return made

    object.__setattr__(task, "generate", catch)
    found = figures(task, state, real, held_out)
    x, held = (np.asarray(part["image"]) / 127.5 - 1 for part in (real, held_out))
    y = fakes["x"]
    pairs = COUNT * (COUNT - 1)
    within, of_fakes = plain_distances(x, x).sum() / pairs, plain_distances(y, y)
    assert found["diversity"] == pytest.approx(of_fakes.sum() / pairs / within, rel=1e-3)
    energy = 2 * plain_distances(x, y).mean() - within - of_fakes.sum() / pairs
    assert found["distance"] == pytest.approx(energy / within, rel=1e-3)
    near = (of_fakes[np.triu_indices(COUNT, 1)] < NEAR * within).sum()
    assert found["support"] == pytest.approx(pairs / 2 / max(near, 0.5))

    def logits(images):
        return np.asarray(
            task.discriminator.apply(state.discriminator.variables, jnp.float32(images), None, train=False)
        )

    a, h, b = logits(x), logits(held), logits(y)
    assert found["gap"] == pytest.approx(a.mean() - b.mean(), rel=1e-3)
    assert found["order"] == pytest.approx(np.mean([i > j for i in a for j in b]), abs=1e-6)
    assert found["held_out_order"] == pytest.approx(np.mean([i > j for i in h for j in b]), abs=1e-6)
    sigmas = []
    for path, matrix in task.matrices.items():
        kernel = state.discriminator.variables["params"]
        for name in path:
            kernel = kernel[name]
        rows = np.transpose(kernel, (*matrix.stacked, *matrix.inputs, *matrix.outputs)).reshape(-1, kernel.shape[-1])
        sigmas.append(np.linalg.svd(rows, compute_uv=False)[0])
    assert 0.7 * max(sigmas) < found["spectral_norm"] < 1.001 * max(sigmas)


def test_without_held_out_examples_nothing_is_said_of_them():
    task = gan()
    state = first_state(task, jax.random.key(0))
    assert "held_out_order" not in figures(task, state, examples(0), {})


@pytest.mark.parametrize(
    "changes",
    [
        {"gan__conditional": True},
        {"gan__conditional": True, "discriminator__conditioning": "classifier"},
        {"discriminator__architecture": "patchgan", "data__image_size": 32, "discriminator__receptive_field": 16},
        {"discriminator__spectral_norm": True},
    ],
    ids=["conditional", "classifier", "patches", "spectral norm"],
)
def test_every_kind_of_player_is_examined(changes):
    task = gan(**changes)
    state = first_state(task, jax.random.key(0))
    real = examples(0)
    if "data__image_size" in changes:
        real = {"image": jnp.repeat(jnp.repeat(real["image"], 2, axis=1), 2, axis=2)}
    if "gan__conditional" in changes:
        real["label"] = jnp.arange(COUNT) % 3
    found = figures(task, state, real, {})
    assert np.isfinite(list(found.values())).all()
    if "discriminator__spectral_norm" in changes:
        assert found["spectral_norm"] < 3


def test_copies_of_one_image_are_a_support_of_one():
    task = gan()
    state = first_state(task, jax.random.key(0))
    object.__setattr__(task, "generate", lambda variables, noise, labels=None: jnp.ones((COUNT, 16, 16, 1)) * 0.3)
    found = figures(task, state, examples(0), {})
    assert found["diversity"] == 0
    assert found["support"] == 1


def verdicts(lines):
    monitor, found = Monitor(RULES), []
    for step, line in enumerate(lines, start=1):
        found += monitor.add({"step": step, **line})
    return [(verdict.name, verdict.step) for verdict in found]


@pytest.mark.parametrize(
    ("good", "bad", "checks"),
    [
        ({"health/distance": 0.05, "health/order": 0.7}, {"health/distance": 1.0, "health/order": 0.9}, 20),
        ({"health/distance": 0.05, "health/order": 0.7}, {"health/distance": 1.0, "health/order": 0.999}, 10),
        ({"health/distance": 0.05, "health/order": 0.7}, {"health/distance": 0.2, "health/order": 0.01}, 5),
    ],
    ids=["never near", "D overpowering", "D fooled"],
)
def test_what_is_clean_lies_before_all_that_a_verdict_is_of(good, bad, checks):
    monitor = Monitor([rule for rule in RULES if rule.begins({**bad})])
    found = []
    for step in range(1, 4 + checks):
        found += monitor.add({"step": step, **(good if step <= 3 else bad)})
    assert [verdict.step for verdict in found] == [3 + checks]
    assert monitor.clean == 3


def series(name, values):
    return [{f"health/{name}": value} for value in values]


def test_diversity_that_falls_and_stays_is_a_collapse_and_one_that_rises_or_comes_back_is_not():
    rising = [0.05, 0.3, 0.8, 0.9, 0.85]
    assert verdicts(series("diversity", [*rising, 0.3, 0.2, 0.3, 0.1, 0.1])) == [("collapse", 9)]
    assert verdicts(series("diversity", [*rising, 0.3, 0.2, 0.3, 0.9, 0.3])) == []
    assert verdicts(series("diversity", [0.01, 0.02, 0.1, 0.3, 0.2, 0.1, 0.1, 0.1])) == []
    assert verdicts(series("diversity", [*rising, 0.02])) == [("total_collapse", 6)]  # though nothing comes after
    assert verdicts(series("diversity", [*rising, 0.0, 0.0, 0.0, 0.0])) == [("total_collapse", 6), ("collapse", 9)]


def test_samples_that_leave_or_never_come_near_diverge():
    assert verdicts(series("distance", [1.5, 0.3, 0.05, 0.9, 0.8, 1.1, 1.2])) == [("divergence", 7)]
    assert verdicts(series("distance", [1.5, 0.3, 0.05, 0.2, 0.2, 0.2, 0.2])) == []  # not far
    assert verdicts(series("distance", [1.0] * 25)) == [("divergence", 20)]
    assert verdicts(series("distance", [1.5 * 0.95**i for i in range(25)])) == []  # slow, but nearing


def test_a_discriminator_that_knows_all_while_samples_stay_far_overpowers():
    far = [{"health/distance": 1.0, "health/order": 0.9999}] * 12
    assert verdicts(far) == [("D_overpowering", 10)]
    assert verdicts([{**line, "health/order": 0.9} for line in far]) == []
    assert verdicts([{**line, "health/distance": 0.01} for line in far]) == []  # as R3GAN on few images: all is well


def test_a_discriminator_that_is_fooled_or_knows_its_images_by_heart():
    fooled = [{"health/order": order, "health/distance": 0.2} for order in (0.7, 0.02, 0.01, 0, 0, 0.01)]
    assert verdicts(fooled) == [("D_fooled", 6)]
    nearing = [{"health/order": 0.01, "health/distance": 0.2 * 0.8**i} for i in range(9)]
    assert verdicts(nearing) == []  # the generator is ahead, and learns
    lines = [{"health/order": 0.99, "health/held_out_order": 0.6}] * 5
    assert verdicts(lines) == [("D_overfitting", 5)]
    assert verdicts([{"health/order": 0.99, "health/held_out_order": 0.9}] * 9) == []


def test_a_generator_without_gradient_is_dead():
    norms = [3.0, 2.0, *[1e-4] * 5]
    assert verdicts([{"gradient_norm/generator": x} for x in norms]) == [("dead_generator", 7)]
    assert verdicts([{"gradient_norm/generator": x} for x in (3.0, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01)]) == []
