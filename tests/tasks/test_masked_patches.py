"""Masked patches: what the networks see, what the loss counts, and what a classifier takes over."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import default_config, validate
from gormley_vision.errors import UserError
from gormley_vision.experiment import described, make_task
from gormley_vision.models.vit import to_patches
from gormley_vision.tasks.masked_patches.network import hidden_patches, targets_of, to_images
from gormley_vision.training.checkpoints import flat
from gormley_vision.training.start import WEIGHTS
from gormley_vision.training.task import first_state

TINY = {
    "data.image_size": 16,
    "data.channels": 3,
    "data.batch_size": 4,
    "vit.width": 16,
    "vit.patch_size": 4,
    "vit.depth": 2,
    "vit.mlp": 16,
    "vit.heads": 2,
}
MAE = {
    "masked_patches.method": "mae",
    "masked_patches.ratio": 0.75,
    "masked_patches.normalised": True,
    "masked_patches.decoder_width": 16,
    "masked_patches.decoder_heads": 2,
    "masked_patches.decoder_depth": 1,
}
NETS = {
    "SimMIM": {},
    "SimMIM, RoPE": {"vit.position": "none", "vit.rope": "naver_axial", "vit.pooling": "gap"},
    "MAE": MAE,
    "MAE, RoPE": MAE | {"vit.position": "none", "vit.rope": "naver_mixed", "vit.registers": 2},
}
EACH = [pytest.param(net, marks=[pytest.mark.slow] if "RoPE" in net else []) for net in NETS]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


def task_of(changes, kind="masked_patches"):
    config = default_config(kind)
    config.update_from_flattened_dict(TINY | changes)
    validate(config.to_dict())
    return make_task(config.to_dict(), described(config.to_dict(), ("a", "b"), 16))


def started(task, seed):
    """The first state; compiled, since op by op takes seconds."""
    return jax.jit(lambda key: first_state(task, key))(jax.random.key(seed))


def with_random(task, seed=0):
    state = started(task, 0)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), state.ema["params"])
    ema = {"params": params, "batch_stats": {}}
    network = dataclasses.replace(state.network, variables=jax.tree.map(jnp.copy, ema))
    return dataclasses.replace(state, ema=ema, network=network)


@pytest.mark.parametrize("net", NETS)
def test_predictions_never_depend_on_hidden_pixels_and_always_on_visible_ones(net):
    task = task_of(NETS[net])
    state = with_random(task)
    order = jnp.asarray(np.random.default_rng(1).permuted(np.tile(np.arange(16), (1, 1)), axis=1), jnp.int32)
    images = jnp.asarray(IMAGES[:1] / 127.5 - 1, jnp.float32)

    def predicted(images):
        return jnp.sum(task._predict(state.ema, images, order)[0] ** 2)

    felt = np.abs(to_patches(jax.jit(jax.grad(predicted))(images), 4)).max(-1)[0]
    hidden = np.asarray(hidden_patches(order, task.hidden))[0]
    assert hidden.sum() == task.hidden == round(16 * (0.75 if "MAE" in net else 0.6))
    np.testing.assert_array_equal(felt > 0, ~hidden)


@pytest.mark.parametrize("net", NETS)
def test_the_order_of_visible_patches_does_not_matter(net):
    """Each has its own position wherever it stands, and so has each token of a hidden one."""
    task = task_of(NETS[net])
    state = with_random(task)
    rng = np.random.default_rng(2)
    order, visible = rng.permutation(16), 16 - task.hidden
    other = np.concatenate([rng.permutation(order[:visible]), rng.permutation(order[visible:])])
    images = jnp.asarray(IMAGES[:1] / 127.5 - 1, jnp.float32)
    one, two = (task._predict(state.ema, images, jnp.asarray(o[None], jnp.int32)) for o in (order, other))
    np.testing.assert_allclose(one, two, atol=2e-5)


@pytest.mark.parametrize("net", ["SimMIM", "MAE"])
def test_the_loss_is_over_hidden_patches_alone(net):
    task = task_of(NETS[net])
    rng = np.random.default_rng(3)
    images = IMAGES[:2].astype(np.float32) / 127.5 - 1
    order = rng.permuted(np.tile(np.arange(16), (2, 1)), axis=1)
    predicted = rng.normal(size=(2, 16, 48)).astype(np.float32)
    expected = []
    for image, row, guess in zip(images, order, predicted, strict=True):
        errors = []
        for patch in row[16 - task.hidden :]:
            y, x = divmod(int(patch), 4)
            pixels = image[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].reshape(-1)
            if net == "MAE":
                pixels = (pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6)
            difference = guess[patch] - pixels
            errors.append(np.mean(difference**2 if net == "MAE" else np.abs(difference)))
        expected.append(np.mean(errors))
    given = task._errors(jnp.asarray(predicted), jnp.asarray(images), jnp.asarray(order, jnp.int32))
    np.testing.assert_allclose(given, expected, rtol=1e-5)


def test_patches_become_the_image_again():
    images = jnp.asarray(IMAGES, jnp.float32)
    np.testing.assert_array_equal(to_images(to_patches(images, 4), (4, 4), 4), images)
    normal = targets_of(images, 4, True)
    np.testing.assert_allclose(normal.mean(-1), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(-1, ddof=1), 1, rtol=1e-4)


@pytest.mark.parametrize("net", EACH)
def test_it_learns_and_shows_the_first_images(net):
    task = task_of(NETS[net] | {"optimizer.learning_rate": 1e-2, "duration": "60 steps", "accumulate": 2})
    state, step = started(task, 0), jax.jit(task.train_step)
    smooth = np.linspace(0, 255, 16, dtype=np.uint8)[None, :, None, None] * np.ones((4, 1, 16, 3), np.uint8)
    losses = []
    for i in range(60):
        images = smooth if i == 0 else smooth[::-1]
        state, metrics, _ = step(state, {"image": jnp.asarray(images[None])}, jax.random.key(1))
        losses.append(float(metrics["loss/train"]))
    assert losses[-1] < 0.6 * losses[0]
    np.testing.assert_array_equal(state.shown[:4], smooth)
    pictures = np.asarray(jax.jit(task.preview)(state, jax.random.key(2)))
    assert pictures.shape == (24, 16, 16, 3)
    np.testing.assert_allclose(pictures[2::3][:4], smooth / 127.5 - 1, atol=1e-6)
    grey = (pictures[0] == 0).all(-1)
    assert grey.sum() >= task.hidden * 16  # what is hidden
    np.testing.assert_array_equal(pictures[1][~grey], pictures[2][~grey])


def test_evaluation_hides_the_same_patches_in_any_batch():
    task = task_of({})
    state = with_random(task)
    evaluate = jax.jit(task.eval_step)
    whole = evaluate(state, {"image": jnp.asarray(IMAGES), "mask": jnp.ones(4, bool)})
    one = [evaluate(state, {"image": jnp.asarray(IMAGES[[i, i]]), "mask": jnp.array([True, False])}) for i in range(4)]
    np.testing.assert_allclose(whole["loss"], sum(part["loss"] for part in one), rtol=1e-5)
    assert float(whole["count"]) == 4


@pytest.mark.parametrize("net", EACH)
def test_a_classifier_takes_over_the_encoder(net):
    pretrained = task_of(NETS[net])
    trained = with_random(pretrained, 4)
    of_vit = {key: value for key, value in NETS[net].items() if key.startswith("vit.")}
    task = task_of(of_vit | {"init_from": "elsewhere", "classification.fresh_head": True}, "classification")
    fresh = started(task, 1)
    weights = {name: x for name, x in flat(trained).items() if WEIGHTS & set(name.split("/"))}
    config = {"task": "masked_patches", "data": {"image_size": 16}}
    moved = task.transfer(weights, fresh, config=config, class_names=())
    expected = {name: x.shape for name, x in flat(fresh).items() if WEIGHTS & set(name.split("/"))}
    assert {name: x.shape for name, x in moved.items()} == expected
    for name, x in flat(trained.ema["params"]["vit"]).items():
        np.testing.assert_array_equal(moved[f"classifier/variables/params/{name}"], x)
    assert not moved["ema/params/head/kernel"].any()
    with pytest.raises(UserError, match="needs a classification run"):
        dataclasses.replace(task, fresh_head=False).transfer(weights, fresh, config=config, class_names=())


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"masked_patches.ratio": 0.01}, "hides none or all of them: --config.masked_patches.ratio=0.6"),
        (MAE | {"masked_patches.decoder_width": 18}, "--config.masked_patches.decoder_width="),
        ({"vit.patch_size": 5}, "--config.vit.patch_size=4"),
    ],
)
def test_what_cannot_be_is_refused(changes, advice):
    with pytest.raises(UserError, match=advice):
        task_of(changes)
