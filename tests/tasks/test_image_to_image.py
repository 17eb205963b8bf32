"""Image to image: what is made of a target, what a step changes, and that what is known stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gormley_vision.config import default_config, validate
from gormley_vision.data.features import Description, Feature
from gormley_vision.errors import UserError
from gormley_vision.experiment import described, make_task
from gormley_vision.layers.colour import rgb_to_lab
from gormley_vision.layers.resampling import imresize
from gormley_vision.tasks.networks import to_unit_range
from gormley_vision.training.checkpoints import flat
from gormley_vision.training.task import first_state

TINY = {
    "data.image_size": 32,
    "data.channels": 3,
    "data.batch_size": 4,
    "log.samples": 2,
    "generator.width": 4,
    "generator.levels": 3,
    "discriminator.width": 4,
    "discriminator.receptive_field": 16,
}
ALONE = {
    "translation.adversarial": 0.0,
    "translation.l1": 1.0,
    "discriminator.width": 64,
    "discriminator.receptive_field": 70,
}
EDSR = {
    "translation.degradation": "downscale",
    "generator.architecture": "edsr",
    "generator.blocks": 1,
    "generator.levels": 7,
}
rng = np.random.default_rng(0)
# Smooth pictures, as photographs are.
IMAGES = np.asarray(jax.image.resize(jnp.asarray(rng.integers(0, 256, (4, 8, 8, 3))), (4, 32, 32, 3), "bilinear"))
IMAGES = IMAGES.astype(np.uint8)
MAPS = rng.integers(0, 3, (4, 32, 32)).astype(np.uint8)


def config_of(changes):
    config = default_config("image_to_image")
    config.update_from_flattened_dict({**TINY, **changes})
    validate(config.to_dict())
    return config.to_dict()


def task_of(changes):
    config = config_of(changes)
    return make_task(config, described(config, (), 16))


def started(task, seed=0):
    return jax.jit(lambda key: first_state(task, key))(jax.random.key(seed))


def batch_of(images=IMAGES, **more):
    return {"image": jnp.asarray(images)[None], **{name: jnp.asarray(x)[None] for name, x in more.items()}}


def stepped(task, state, **more):
    return jax.jit(task.train_step)(state, batch_of(**more), jax.random.key(3))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_step_is_that_of_two_separate_functions():
    """Against a slow reference: D against the outputs of the old G, then G against the new D, both by Adam."""
    changes = {"translation.degradation": "blur", "generator.dropout": 0.0, "translation.l1": 10.0}
    task = task_of(changes)
    state = started(task)
    after, logged, _ = stepped(task, state)
    target = jnp.asarray(IMAGES) / 127.5 - 1
    given = task.degradation.given(task.degradation.corrupt(jax.random.key(0), target)[0], None)

    def judge(params, images):
        both = jnp.concatenate([given.inputs, images], -1)
        return task.discriminator.apply({"params": params}, both, train=True, mutable=["batch_stats"])[0]

    def fakes(params):
        return task.generator.apply({"params": params}, given.inputs, train=False)

    def cross_entropy(logits, real):
        return -jnp.mean(jax.nn.log_sigmoid(logits if real else -logits))

    def d_loss(params):
        fake = fakes(state.generator.variables["params"])
        return (cross_entropy(judge(params, target), True) + cross_entropy(judge(params, fake), False)) / 2

    adam = optax.adam(2e-4, b1=0.5)

    def updated(params, loss):
        gradients = jax.jit(jax.grad(loss))(params)
        updates, _ = adam.update(gradients, adam.init(params), params)
        return optax.apply_updates(params, updates), gradients

    new_d, d_gradients = updated(state.discriminator.variables["params"], d_loss)

    def g_loss(params):
        fake = fakes(params)
        return cross_entropy(judge(new_d, fake), True) + 10 * jnp.mean(jnp.abs(fake - target))

    _, g_gradients = updated(state.generator.variables["params"], g_loss)
    norms = {"discriminator": d_gradients, "generator": g_gradients}
    for player, gradients in norms.items():
        assert float(logged[f"gradient_norm/{player}"]) == pytest.approx(float(optax.tree.norm(gradients)), rel=1e-4)
    for name, expected in flat(new_d).items():  # Adam's first step is the gradient's sign where it is not tiny
        found = flat(after.discriminator.variables["params"])[name]
        large = np.abs(flat(d_gradients)[name]) > 1e-6
        np.testing.assert_allclose(np.asarray(found)[large], np.asarray(expected)[large], atol=2e-6)


def test_the_first_examples_are_shown_whatever_the_batch():
    few, many = (task_of({"translation.degradation": "blur", "log.samples": n, "data.batch_size": 2}) for n in (1, 3))
    for task, expected in ((few, IMAGES[:1]), (many, IMAGES[:3])):
        state, step = started(task), jax.jit(task.train_step)
        for images in (IMAGES[:2], IMAGES[2:], IMAGES[:2]):
            state, *_ = step(state, batch_of(images), jax.random.key(0))
        assert np.array_equal(state.shown["image"], expected)


def test_players_change_alone():
    """A player whose rate is 0 stays as it is, to the bit, whatever the other does."""
    for frozen, other in (("generator", "discriminator"), ("discriminator", "generator")):
        task = task_of({"translation.degradation": "blur", f"{frozen}_optimizer.learning_rate": 0.0})
        state = started(task)
        after, _, checks = stepped(task, state)
        assert same(getattr(after, frozen).variables, getattr(state, frozen).variables)
        assert not same(getattr(after, other).variables, getattr(state, other).variables)
        assert all(map(bool, checks.values()))


@pytest.mark.parametrize(
    "objective",
    ["least_squares", pytest.param("relativistic_paired", marks=pytest.mark.slow)],
)
def test_other_objectives_and_penalties_step(objective):
    task = task_of(
        {"translation.degradation": "jpeg", "translation.objective": objective, "translation.r1": 1.0}
        | {"translation.r2": 1.0, "translation.conditional": False, "discriminator.norm": "none"}
    )
    after, logged, checks = stepped(task, started(task))
    assert all(map(bool, checks.values()))
    assert int(after.step) == 1
    assert float(logged["loss/adversarial"]) > 0


def test_batch_norm_is_by_the_batch_at_hand_and_a_feature_loss_is_of_features():
    task = task_of(
        {"translation.degradation": "grey", "generator.norm": "batch", "discriminator.norm": "batch"}
        | {"translation.perceptual": 2.0, "translation.feature_layers": "relu1_1,relu2_1", "translation.l1": 0.0}
        | {"generator.dropout": 0.0, "translation.adversarial": 0.5}
    )
    state = started(task)
    after, logged, checks = stepped(task, state)
    assert all(map(bool, checks.values()))
    assert same(after.discriminator.variables["batch_stats"], state.discriminator.variables["batch_stats"])
    lab = task.degradation.from_rgb(to_unit_range(jnp.asarray(IMAGES)))
    given = task.degradation.given(lab, None)
    made = task.degradation.image(given, task.generator.apply(state.ema, given.inputs, train=False))
    maps = [task.features(task.degradation.to_rgb(x), task.features.unit_scales()) for x in (made, lab)]
    expected = np.mean([np.mean((np.asarray(maps[0][n]) - maps[1][n]) ** 2) for n in ("relu1_1", "relu2_1")])
    assert float(logged["loss/perceptual"]) == pytest.approx(expected, rel=1e-4)
    total = 2 * float(logged["loss/perceptual"]) + 0.5 * float(logged["loss/adversarial"])
    assert float(logged["loss/generator"]) == pytest.approx(total, rel=1e-5)


def test_a_weight_that_a_schedule_turns_on_is_on():
    schedules = "translation.l1 = 0: 0, 8 images: 100; translation.r1 = 0: 1, 8 images: 0"
    task = task_of({"translation.degradation": "blur", "translation.l1": 0.0, "translation.schedules": schedules})
    assert (task.losses, task.penalties) == (("l1",), ("r1",))


def test_microbatches_make_the_same_step():
    changes = {"translation.degradation": "blur", "generator.dropout": 0.0, "generator_optimizer.name": "momentum_sgd"}
    changes |= {"discriminator_optimizer.name": "momentum_sgd"}
    whole, parts = task_of(changes), task_of(changes | {"accumulate": 2})
    state = started(whole)
    one, logged, _ = stepped(whole, state)
    two, logged_in_parts, _ = stepped(parts, state)
    for name, value in flat(one.generator.variables).items():
        np.testing.assert_allclose(flat(two.generator.variables)[name], value, atol=1e-5)
    for name in ("loss/generator", "loss/discriminator", "loss/l1"):
        assert float(logged_in_parts[name]) == pytest.approx(float(logged[name]), rel=1e-4)


def test_an_untrained_edsr_is_bicubic_interpolation():
    task = task_of(EDSR | ALONE)
    state = started(task)
    sums = jax.jit(task.eval_step)(state, {"image": jnp.asarray(IMAGES), "mask": jnp.ones(4, bool)})
    assert float(sums["psnr"]) == float(sums["given_psnr"])
    assert float(sums["count"]) == 4
    figures = task.eval_figures({name: float(x) / 4 for name, x in sums.items() if name != "count"})
    assert figures.keys() == {"l1", "psnr", "sharpness", "given_l1", "given_psnr", "given_sharpness"}
    assert 0.3 < figures["sharpness"] < 1  # an enlarged picture is smoother than what it was made of
    small = jnp.round((imresize(to_unit_range(jnp.asarray(IMAGES)), 1 / 2) + 1) * 127.5)
    large = np.clip(np.round(np.asarray(imresize(jnp.clip(small, 0, 255), 2))), 0, 255)
    error = np.mean(((large - IMAGES) / 255) ** 2, axis=(1, 2, 3))
    assert float(sums["psnr"]) == pytest.approx(float(np.sum(-10 * np.log10(error))), abs=0.02)


def test_masked_examples_are_not_evaluated():
    task = task_of(EDSR | ALONE)
    state = started(task)
    run = jax.jit(task.eval_step)
    padded = np.concatenate([IMAGES[:3], np.zeros((1, 32, 32, 3), np.uint8)])
    some = run(state, {"image": jnp.asarray(padded), "mask": jnp.arange(4) < 3})
    each = [run(state, {"image": jnp.asarray(IMAGES), "mask": jnp.arange(4) == i}) for i in range(3)]
    assert float(some["psnr"]) == pytest.approx(sum(float(x["psnr"]) for x in each), rel=1e-5)


@pytest.mark.parametrize("mask", ["box", "side"])
def test_pixels_outside_of_a_hole_stay_to_the_bit(mask):
    task = task_of({"translation.degradation": mask})
    state = started(task)
    target, picture, known = task.degrade(IMAGES[0], 5)
    assert 0.1 < known.mean() < 0.95
    assert np.array_equal(target, picture)
    made, given = task.translate(state, picture, known)
    assert np.array_equal(made[known], IMAGES[0][known])
    assert np.array_equal(given[known], IMAGES[0][known])
    assert not np.array_equal(made[~known], IMAGES[0][~known])
    mean = IMAGES[0][known].astype(float).mean(0)
    np.testing.assert_allclose(given[~known], np.broadcast_to(mean, given[~known].shape), atol=0.51)
    hidden = picture.copy()
    hidden[~known] = 77  # what lies under a hole is never read
    assert np.array_equal(task.translate(state, hidden, known)[0], made)


def test_a_picture_of_another_size_is_squeezed_and_keeps_what_is_known():
    task = task_of({"translation.degradation": "box"})
    state, picture = started(task), rng.integers(0, 256, (48, 72, 3)).astype(np.uint8)
    known = np.ones((48, 72), bool)
    known[10:31, 20:50] = False
    made, given = task.translate(state, picture, known)
    assert np.array_equal(made[known], picture[known])
    mean = picture[known].astype(float).mean(0)
    np.testing.assert_allclose(given[~known], np.broadcast_to(mean, given[~known].shape), atol=0.51)
    hidden = picture.copy()
    hidden[~known] = 77
    assert np.array_equal(task.translate(state, hidden, known)[0], made)
    own, _ = task.translate(state, picture, known, own_size=True)
    assert np.array_equal(own[known], picture[known])
    assert not np.array_equal(own, made)
    grey = task_of({"translation.degradation": "grey"})
    coloured, shown = grey.translate(started(grey), picture)
    lightness = [np.asarray(rgb_to_lab(jnp.asarray(x)[None] / 127.5 - 1.0))[..., 0] for x in (shown, picture)]
    np.testing.assert_allclose(*lightness, atol=0.3)  # of 100: rounded to 8 bits
    assert coloured.shape == shown.shape == picture.shape


@pytest.mark.parametrize("convolution", ["partial", "gated"])
def test_nets_for_holes(convolution):
    task = task_of({"translation.degradation": "strokes", "generator.convolution": convolution})
    state = started(task)
    _, _, checks = stepped(task, state)
    assert all(map(bool, checks.values()))
    target = to_unit_range(jnp.asarray(IMAGES))
    inputs = task.degradation.given(*task.degradation.corrupt(jax.random.key(0), target)).inputs
    other = jnp.where(inputs[..., -1:] > 0, inputs[..., :-1], 0.3)  # something else under the holes
    run = jax.jit(lambda x: task.generator.apply(state.ema, x, train=False))
    differs = np.abs(run(inputs) - run(jnp.concatenate([other, inputs[..., -1:]], -1))).max()
    assert (differs == 0) == (convolution == "partial")


def test_colours_leave_the_lightness_as_it_is():
    task = task_of({"translation.degradation": "grey"})
    state = started(task)
    lab = task.degradation.from_rgb(to_unit_range(jnp.asarray(IMAGES)))
    given = task.degradation.given(*task.degradation.corrupt(jax.random.key(0), lab))
    made = task.degradation.image(given, task.generator.apply(state.ema, given.inputs, train=False))
    assert np.array_equal(made[..., 0], lab[..., 0])
    assert given.inputs.shape == (4, 32, 32, 1)
    grey = np.asarray(task.levels(given.shown))
    assert np.abs(grey - grey[..., :1]).max() <= 1  # without colours it is grey


@pytest.mark.parametrize("degradation", ["grey", "strokes"])
def test_a_residual_net_starts_at_what_is_given_and_leaves_it(degradation):
    task = task_of({"translation.degradation": degradation, "generator.residual": True})
    state = started(task)
    evaluate = jax.jit(task.eval_step)
    batch = {"image": jnp.asarray(IMAGES), "mask": jnp.ones(4)}
    first = evaluate(state, batch)
    assert float(first["psnr"]) == float(first["given_psnr"])
    assert float(first["energy"]) == float(first["given_energy"])
    for _ in range(2):  # the first update moves the last layer alone
        state, _, checks = stepped(task, state)
    assert all(map(bool, checks.values()))
    assert float(evaluate(state, batch)["psnr"]) != float(first["psnr"])


def pairs_task(changes=None, names=("road", "sky", "car")):
    config = config_of(
        {"data.source": "folder", "data.targets": "maps", "translation.reverse": True, **(changes or {})}
    )
    features = {
        "image": Feature("image", (32, 32, 3), "uint8"),
        "target": Feature("label_map", (32, 32), "uint8", names, fill=255),
    }
    return make_task(config, Description(features, 16))


def test_label_maps_become_one_number_a_class():
    task = pairs_task()
    maps = MAPS.copy()
    maps[0, 0, 0] = 255
    images = np.asarray(task.read(jnp.asarray(maps)))
    assert images.shape == (4, 32, 32, 3)
    assert not images[0, 0, 0].any()
    assert np.array_equal(images[1].argmax(-1), maps[1])
    assert images[1].sum() == 32 * 32
    state = started(task)
    after, logged, checks = stepped(task, state, target=maps)
    assert all(map(bool, checks.values()))
    assert float(logged["loss/l1"]) > 0
    pictures = task.show(jax.jit(task.preview)(after, jax.random.key(0)))
    assert len(pictures) == 6
    sums = jax.jit(task.eval_step)(state, {**{k: v[0] for k, v in batch_of(target=maps).items()}, "mask": jnp.ones(4)})
    assert "given_psnr" not in sums
    assert float(sums["l1"]) > 0
    made, shown = task.translate(state, maps[0])
    assert made.shape == shown.shape == (32, 32, 3)
    with pytest.raises(UserError, match="learned from pairs"):
        task.degrade(IMAGES[0])


def test_label_maps_need_names_and_are_no_targets():
    with pytest.raises(UserError, match=r"classes\.txt"):
        pairs_task(names=())
    with pytest.raises(UserError, match=r"translation\.reverse=true"):
        pairs_task({"translation.reverse": False})
    with pytest.raises(UserError, match=r"generator\.residual=false"):
        pairs_task({"generator.residual": True})


def test_pictures_of_a_pair_are_moved_alike():
    """Targets that are the inputs' negatives stay that, whatever is cut out, mirrored and turned."""
    changes = {"data.image_size": 40, "translation.patch": 32, "translation.turns": True, "data.flip": True}
    config = config_of(changes | {"data.source": "folder", "data.side_by_side": True})
    features = dict.fromkeys(("image", "target"), Feature("image", (40, 40, 3), "uint8"))
    task = make_task(config, Description(features, 16))
    images = rng.integers(0, 256, (8, 40, 40, 3)).astype(np.uint8)
    moved = task._augmented(jax.random.key(1), jnp.int32(4), {"image": jnp.asarray(images), "target": 255 - images})
    assert moved["image"].shape == (8, 32, 32, 3)
    assert np.array_equal(moved["image"], 255 - np.asarray(moved["target"]))
    centres = task._cut({"image": jnp.asarray(images), "target": jnp.asarray(images)})["image"]
    assert not np.array_equal(moved["image"], centres)


def test_tiles_equal_the_whole():
    task = task_of(EDSR | ALONE)
    state = started(task)
    # A net with something in its last convolution, which starts at zero.
    params = jax.tree.map(lambda x: x + 0.02 * jax.random.normal(jax.random.key(x.size), x.shape), state.ema)
    state = state.replace(ema=params)
    picture = np.concatenate([np.concatenate(list(IMAGES[:2]), 1), np.concatenate(list(IMAGES[2:]), 1)])[:50, :61]
    whole, _ = task.translate(state, picture)  # smaller than a tile
    parts, given = task.translate(state, picture, tile=32)
    assert parts.shape == given.shape == (100, 122, 3)
    assert np.abs(parts.astype(int) - whole).max() <= 1
    with pytest.raises(UserError, match="--tile=15 or more"):
        task.translate(state, picture, tile=14)
    assert np.abs(parts.astype(int) - given).max() > 3


def test_any_size_goes_through_a_unet():
    task = task_of({"translation.degradation": "blur"})
    made, given = task.translate(started(task), IMAGES[0][:29, :19])
    assert made.shape == (29, 19, 3)
    assert np.array_equal(given, IMAGES[0][:29, :19])


def test_a_game_starts_from_a_net_trained_without_one():
    alone, game = task_of(EDSR | ALONE), task_of(EDSR)
    trained, fresh = started(alone, 1), started(game, 2)
    weights = game.transfer(flat(trained), fresh, config={"task": "image_to_image"}, class_names=())
    assert same(
        weights["generator/variables/params/Convolution_0/kernel"],
        trained.generator.variables["params"]["Convolution_0"]["kernel"],
    )
    own = {name for name in flat(fresh) if name.startswith("discriminator/variables")}
    assert own
    assert own <= weights.keys()
    back = alone.transfer(flat(fresh), trained, config={"task": "image_to_image"}, class_names=())
    assert not any(name.startswith("discriminator") for name in back)
    with pytest.raises(UserError, match="is a run of gan"):
        game.transfer({}, fresh, config={"task": "gan"}, class_names=())
