"""Evaluation sums, augmentation's keys, averaging, and what another run's weights become."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import default_config
from gormley_vision.errors import UserError
from gormley_vision.experiment import described, make_task
from gormley_vision.training.task import first_state

TINY = {
    "data.image_size": 16,
    "vit.width": 8,
    "vit.patch_size": 4,
    "vit.depth": 2,
    "vit.mlp": 8,
    "vit.heads": 2,
    "data.batch_size": 4,
}
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 16, 16, 1), np.uint8)
LABELS = RNG.integers(0, 3, 10, np.int32)


def task_of(classes=3, **overrides):
    config = default_config("classification")
    config.update_from_flattened_dict(TINY | {key.replace("__", "."): value for key, value in overrides.items()})
    names = tuple(map(str, range(classes)))
    return make_task(config.to_dict(), described(config, names, 16))


@pytest.fixture(scope="module")
def trained():
    """(task, state, later state): the head of a fresh net is zero, and says little."""
    task = task_of(classification__ema_half_life="8 images", classification__ema_ramp=1e9)
    state = jax.jit(partial(first_state, task))(jax.random.key(0))
    batch = {"image": IMAGES[None, :4], "label": LABELS[None, :4]}
    step = jax.jit(task.train_step)
    states = [state]
    for _ in range(3):
        states.append(step(states[-1], batch, jax.random.key(1))[0])
    return task, states


def test_sums_over_padded_batches_equal_numpy_over_the_whole_split(trained):
    task, states = trained
    state = states[-1]
    evaluate = jax.jit(task.eval_step)
    sums = {"accuracy": 0.0, "loss": 0.0, "count": 0.0}
    for start in (0, 4, 8):
        part = slice(start, start + 4)
        padding = 4 - len(LABELS[part])
        batch = {
            "image": jnp.asarray(np.pad(IMAGES[part], ((0, padding), (0, 0), (0, 0), (0, 0)))),
            "label": jnp.asarray(np.pad(LABELS[part], (0, padding))),
            "mask": jnp.arange(4) < 4 - padding,
        }
        for name, value in evaluate(state, batch).items():
            sums[name] += float(value)

    inputs = IMAGES.astype(np.float32) / 255 * 2 - 1
    logits = np.asarray(jax.jit(lambda x: task.classifier.apply(state.ema, x))(inputs))
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(10), LABELS]
    assert len(set(logits.argmax(1))) > 1, "the net says the same of everything"
    assert sums["count"] == 10
    assert sums["accuracy"] == (logits.argmax(1) == LABELS).sum()
    np.testing.assert_allclose(sums["loss"], losses.sum(), rtol=1e-5)


def test_the_average_has_the_half_life_that_was_asked_for(trained):
    _, states = trained
    kernel = [np.asarray(s.classifier.variables["params"]["head"]["kernel"]) for s in states]
    average = [np.asarray(s.ema["params"]["head"]["kernel"]) for s in states]
    decay = 0.5 ** (4 / 8)  # a step of 4 images, a half-life of 8
    expected = kernel[0]
    for t in (1, 2, 3):
        expected = decay * expected + (1 - decay) * kernel[t]
        np.testing.assert_allclose(average[t], expected, rtol=1e-5, atol=1e-7)


def test_augmentation_draws_anew_each_step_and_keeps_what_it_is_told():
    task = task_of(
        data__flip=True,
        classification__shift=2,
        classification__crop_min_area=0.3,
        classification__randaugment_operations=1,
        classification__mixup=0.4,
        classification__cutmix=1.0,
        classification__label_smoothing=0.1,
    )
    augment = jax.jit(lambda step: task.augmentation(jax.random.key(0), IMAGES, LABELS, 3, step))
    (first, targets), (again, _), (second, _) = augment(0), augment(0), augment(1)
    assert first.shape == IMAGES.shape
    assert first.dtype == jnp.float32
    assert np.abs(first).max() <= 1
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    assert (first == again).all()
    assert (first != second).any()
    plain, targets = task_of().augmentation(jax.random.key(0), IMAGES, LABELS, 3, 0)
    np.testing.assert_allclose(plain, IMAGES / 127.5 - 1, rtol=1e-6, atol=1e-6)
    assert (targets == np.eye(3)[LABELS]).all()


AT_16 = {"data": {"image_size": 16}}


def flat(state):
    parts = {"classifier/variables": state.classifier.variables, "ema": state.ema}
    return {
        "/".join([part, *(k.key for k in path)]): x
        for part, tree in parts.items()
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_fine_tuning_takes_the_average_a_fresh_head_and_resized_positions(trained):
    old_task, states = trained
    old = flat(states[-1])
    task = task_of(5, classification__fresh_head=True, data__image_size=24)
    new = flat(jax.eval_shape(partial(first_state, task), jax.random.key(2)))
    state = jax.jit(partial(first_state, task))(jax.random.key(2))
    weights = task.transfer(old, state, config=AT_16, class_names=("0", "1", "2"))
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in new.items()}
    for part in ("classifier/variables", "ema"):
        assert not weights[f"{part}/params/head/kernel"].any()
        table = weights[f"{part}/params/position_embedding"]
        assert (table[:, 0] == old["ema/params/position_embedding"][:, 0]).all(), "[CLS] stays"
        corners = np.asarray(old["ema/params/position_embedding"])[0, 1:][[0, 3, 12, 15]]
        np.testing.assert_allclose(np.asarray(table)[0, 1:][[0, 5, 30, 35]], corners, rtol=1e-6)  # Google keeps them
        for name, value in weights.items():
            if name.startswith(part) and "head" not in name and "position" not in name:
                assert (value == old["ema" + name.removeprefix(part)]).all(), name
    assert old_task.transfer(old, states[0], config=AT_16, class_names=("0", "1", "2")).keys() == old.keys()


def test_other_classes_without_a_fresh_head_are_refused(trained):
    _, states = trained
    task = task_of(5)
    state = jax.eval_shape(partial(first_state, task), jax.random.key(2))
    with pytest.raises(UserError, match="fresh_head=true"):
        task.transfer(flat(states[-1]), state, config=AT_16, class_names=("0", "1", "2"))


def test_a_head_goes_to_the_classes_of_its_names(trained):
    """Another run's classes in another order: an image is called by the same name as there."""
    old_task, states = trained
    names = ("2", "0", "1")
    task = dataclasses.replace(old_task, class_names=names)
    weights = old_task.transfer(flat(states[-1]), states[0], config=AT_16, class_names=("0", "1", "2"))
    moved = task.transfer(flat(states[-1]), states[0], config=AT_16, class_names=("0", "1", "2"))
    for part in ("classifier/variables", "ema"):
        for leaf in ("kernel", "bias"):
            old, new = (np.asarray(w[f"{part}/params/head/{leaf}"]) for w in (weights, moved))
            for position, name in enumerate(names):
                assert (new[..., position] == old[..., int(name)]).all()
    with pytest.raises(UserError, match=r"cat, dog, eel; here they are 2, 0, 1.*fresh_head"):
        task.transfer(flat(states[-1]), states[0], config=AT_16, class_names=("cat", "dog", "eel"))


def test_it_learns():
    """Which half of the image is bright: 64 images, 60 steps, all right."""
    task = task_of(2, data__batch_size=64, optimizer__learning_rate=0.01, duration="60 steps")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64, np.int32)
    images = rng.integers(0, 100, (64, 16, 16, 1), np.uint8)
    images[labels == 1, :, 8:] += 100
    images[labels == 0, :, :8] += 100
    state, step = jax.jit(partial(first_state, task))(jax.random.key(0)), jax.jit(task.train_step)
    for _ in range(60):
        state, metrics, _ = step(state, {"image": images[None], "label": labels[None]}, jax.random.key(1))
    assert metrics["accuracy/train"] == 1
    assert metrics["loss/classifier"] < 0.1
