"""Style transfer: a picture that is optimised, networks that paint, and what is read of pictures and weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from gormley_vision.config import default_config, validate
from gormley_vision.errors import UserError
from gormley_vision.experiment import described, make_task
from gormley_vision.models.vgg import random_weights, torchvision_shapes
from gormley_vision.tasks.feature_nets import open_weights
from gormley_vision.tasks.style_transfer.fields import SAMPLING
from gormley_vision.tasks.style_transfer.pictures import open_picture
from gormley_vision.training.task import first_state

TINY = {
    "data.image_size": 16,
    "data.channels": 3,
    "data.batch_size": 2,
    "style.content_layers": "relu1_2",
    "style.style_layers": "relu1_1,relu2_1",
}
GATYS = {"style.size": 16}
FEEDFORWARD = {"style.method": "feedforward", "style.size": 16, "style.width": 16}
ADAIN = {"style.method": "adain", "style.content_layers": "relu2_1"}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 3), np.uint8)
DEFAULTS = {name: field.default for name, field in SAMPLING.items()}


def task_of(changes):
    config = default_config("style_transfer")
    config.update_from_flattened_dict(TINY | changes)
    validate(config.to_dict())
    return make_task(config.to_dict(), described(config.to_dict(), (), 16))


def started(task, seed=0):
    return jax.jit(lambda key: first_state(task, key))(jax.random.key(seed))


def trained(task, state, steps, batch):
    step, lines = jax.jit(task.train_step), []
    for _ in range(steps):
        state, metrics, checks = step(state, {"image": jnp.asarray(batch)}, jax.random.key(1))
        assert all(map(bool, checks.values()))
        lines.append({name: float(value) for name, value in metrics.items()})
    return state, lines


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_texture_of_random_filters_is_matched(optimizer):
    """From noise, without content: the style loss falls at least tenfold, and colours become the stripes'."""
    options = {"style.start": "noise", "style.content_weight": 0.0, "style.optimizer": optimizer}
    steps = {"lbfgs": 25, "adam": 80}[optimizer]
    task = task_of(GATYS | options)
    state, lines = trained(task, started(task), steps, IMAGES[:1])
    assert lines[-1]["loss/style"] < lines[0]["loss/style"] / 10
    assert lines[-1]["loss/train"] == lines[-1]["loss/style"]
    stripes = open_picture("style.image", "fake", 16) / 127.5 - 1
    assert abs(np.asarray(state.picture).mean((0, 1, 2)) - stripes.mean((0, 1, 2))).max() < 0.3
    assert not np.allclose(started(task, 1).picture, started(task, 0).picture)  # the noise is the seed's


def test_where_style_content_and_picture_are_one_there_is_no_loss_and_no_step(tmp_path):
    file = tmp_path / "one.png"
    Image.fromarray(IMAGES[0, 0]).save(file)
    task = task_of(GATYS | {"style.content": str(file), "style.image": str(file)})
    state = started(task)
    after, lines = trained(task, state, 2, IMAGES[:1])
    assert lines[0]["loss/train"] < 1e-9
    assert lines[0]["gradient_norm/picture"] < 1e-5
    np.testing.assert_allclose(after.picture, state.picture, atol=1e-3)
    np.testing.assert_allclose(state.picture, IMAGES[0, :1] / 127.5 - 1, atol=1e-6)


def test_the_losses_are_those_of_normalised_features(tmp_path):
    """By hand, on the maps of the network: scales, means over layers, weights."""
    weights = {"style.content_weight": 2.0, "style.style_weight": 3.0, "style.tv_weight": 5.0}
    task = task_of(GATYS | weights | {"style.gram": "gatys", "style.content_layers": "relu1_1,relu1_2"})
    state = started(task)
    other = jnp.asarray(IMAGES[0, :1] / 127.5 - 1, jnp.float32)
    found = task.objective.parts(other, state.scales, state.content, state.style)
    content, style = (open_picture(f"style.{name}", "fake", 16) / 127.5 - 1 for name in ("content", "image"))
    net = dataclasses.replace(task.objective.net, normalised=False)
    maps = [net(jnp.asarray(x, jnp.float32), net.unit_scales()) for x in (other, content, style)]
    maps = [{layer: np.asarray(x, np.float64)[0] for layer, x in each.items()} for each in maps]
    for layer in maps[0]:
        means = (maps[1][layer].mean((0, 1)) + maps[2][layer].mean((0, 1))) / 2
        scale = np.maximum(means, 0.1 * means.mean())
        np.testing.assert_allclose(state.scales[layer], scale, rtol=1e-4)
        for each in maps:
            each[layer] /= scale
    kept = np.mean([np.mean((maps[0][layer] - maps[1][layer]) ** 2) for layer in ("relu1_1", "relu1_2")])
    styled = []
    for layer in ("relu1_1", "relu2_1"):
        grams = [np.einsum("hwc,hwd->cd", each[layer], each[layer]) / each[layer][..., 0].size for each in maps]
        styled.append(np.mean((grams[0] - grams[2]) ** 2) / 4)
    np.testing.assert_allclose(found["loss/content"], 2 * kept, rtol=1e-3)
    np.testing.assert_allclose(found["loss/style"], 3 * np.mean(styled), rtol=1e-3)
    x = np.asarray(other)
    variation = np.mean(np.diff(x, axis=1) ** 2) + np.mean(np.diff(x, axis=2) ** 2)
    np.testing.assert_allclose(found["loss/total_variation"], 5 * variation, rtol=1e-4)


def test_an_optimised_picture_is_one_sample_of_its_own_size(tmp_path):
    file = tmp_path / "wide.png"
    Image.fromarray(IMAGES[0, 0]).resize((24, 12)).save(file)
    task = task_of(GATYS | {"style.content": str(file)})
    state = started(task)
    assert state.picture.shape == (1, 8, 16, 3)
    state = dataclasses.replace(state, picture=3 * state.picture)
    samples = task.sample(state, num=64, seed=0, **DEFAULTS)
    assert samples.images.shape == (1, 8, 16, 3)
    assert abs(samples.images).max() == 1
    np.testing.assert_array_equal(samples.images, task.preview(state, jax.random.key(0)))
    with pytest.raises(UserError, match="--alpha is of networks"):
        task.sample(state, num=1, seed=0, **DEFAULTS | {"alpha": 0.5})


def test_a_network_learns_a_style_and_restyles_pictures_of_other_sizes(tmp_path):
    options = {"optimizer.learning_rate": 1e-3, "optimizer.schedule": "constant", "style.content_weight": 0.01}
    task = task_of(FEEDFORWARD | options)
    state, lines = trained(task, started(task), 40, IMAGES[:1])
    assert lines[-1]["loss/style"] < 0.4 * lines[0]["loss/style"]
    np.testing.assert_array_equal(state.shown[:2], IMAGES[0])
    again, _ = trained(task, state, 1, IMAGES[1:])  # the style and the pictures are those of the first step
    for part in ("shown", "scales", "style"):
        jax.tree.map(np.testing.assert_array_equal, getattr(again, part), getattr(state, part))
    pictures = np.asarray(jax.jit(task.preview)(state, jax.random.key(0)))
    assert pictures.shape == (16, 16, 16, 3)
    np.testing.assert_allclose(pictures[:4:2], IMAGES[0] / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(task.sample(state, num=3, seed=0, **DEFAULTS).images[:2], pictures[1:5:2], atol=1e-4)
    file = tmp_path / "photo.png"
    Image.fromarray(IMAGES[0, 0]).resize((20, 10)).save(file)
    assert task.sample(state, num=9, seed=0, **DEFAULTS | {"content": str(file)}).images.shape == (1, 10, 20, 3)
    with pytest.raises(UserError, match="leave them out"):
        task.sample(state, num=1, seed=0, **DEFAULTS | {"alpha": 0.5})


def test_a_decoder_learns_and_without_style_paints_the_content(tmp_path):
    options = {"optimizer.learning_rate": 3e-3, "optimizer.schedule": "constant", "style.style_weight": 0.01}
    task = task_of(ADAIN | options)
    state, lines = trained(task, started(task), 40, IMAGES)
    assert lines[-1]["loss/content"] < 0.5 * lines[0]["loss/content"]
    np.testing.assert_array_equal(state.shown[:, :2], IMAGES)
    content, style = jnp.asarray(IMAGES[0]), jnp.asarray(IMAGES[1])
    restyle = jax.jit(task.restyle)
    plain = restyle(state, content, style, 0.0)
    np.testing.assert_allclose(restyle(state, content, content, 1.0), plain, atol=1e-3)  # its own style is none
    maps = task.net(content / 127.5 - 1.0, state.scales)["relu2_1"]
    np.testing.assert_allclose(plain, jnp.clip(task._decode(state.ema, maps), -1, 1), atol=1e-4)
    assert abs(np.asarray(restyle(state, content, style, 1.0) - plain)).max() > 0.01
    files = {"content": tmp_path / "photo.png", "image": tmp_path / "style.png"}
    Image.fromarray(IMAGES[0, 0]).resize((21, 11)).save(files["content"])
    Image.fromarray(IMAGES[1, 0]).resize((9, 30)).save(files["image"])
    given = DEFAULTS | {name: str(file) for name, file in files.items()}
    assert task.sample(state, num=5, seed=0, **given).images.shape == (1, 10, 20, 3)  # halves are rounded down
    assert len(task.sample(state, num=5, seed=0, **given | {"content": ""})) == 5


def test_weights_are_read_from_torchvisions_file_and_what_is_not_one_is_refused(tmp_path):
    layers = ("relu1_2",)
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(size=shape).astype(np.float32) for name, shape in torchvision_shapes(layers).items()}
    save_file(arrays | {"classifier.0.bias": np.zeros(3, np.float32)}, tmp_path / "vgg.safetensors")
    architecture, weights = open_weights(f"vgg19:{tmp_path}/vgg.safetensors", layers, "style.features")
    assert architecture.channels["relu1_2"] == 64
    assert weights.keys() == random_weights(0, layers).keys()
    np.testing.assert_array_equal(weights["conv1_2/kernel"][:, :, 7, 5], arrays["features.2.weight"][5, 7])
    arrays["features.2.bias"] = np.zeros(3, np.float32)
    save_file(arrays, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"features.2.bias is \(3,\), where \(64,\)"):
        open_weights(f"vgg19:{tmp_path}/other.safetensors", layers, "style.features")
    with pytest.raises(UserError, match=r"features.5.weight is missing"):
        open_weights(f"vgg19:{tmp_path}/vgg.safetensors", ("relu2_1",), "style.features")
    for text in (f"vgg19:{tmp_path}/none", f"vgg19:{__file__}", f"vgg19:{tmp_path}"):
        with pytest.raises(UserError, match="cannot be read"):
            open_weights(text, layers, "style.features")
    for text in ("vgg19", "vgg19:", "random:x", "random:", "lite0", "lite1:f"):
        with pytest.raises(UserError, match=r"vgg19:FILE.safetensors, lite0:FILE.safetensors or random:SEED"):
            open_weights(text, layers, "style.features")


def test_pictures_are_read_upright_on_white_and_at_the_size_that_is_asked_for(tmp_path):
    red = Image.new("RGBA", (10, 20), (255, 0, 0, 255))
    red.putpixel((0, 0), (0, 0, 0, 0))
    red.save(tmp_path / "red.png")
    own = open_picture("style.image", str(tmp_path / "red.png"), 0)
    assert own.shape == (1, 20, 10, 3)
    assert own[0, 0, 0].tolist() == [255] * 3
    assert own[0, 1, 1].tolist() == [255, 0, 0]
    assert open_picture("style.image", str(tmp_path / "red.png"), 30).shape == (1, 30, 15, 3)
    Image.fromarray(np.full((4, 4), 257 * 30, np.uint16)).save(tmp_path / "deep.png")  # 16 bits, as in folders
    assert (open_picture("style.image", str(tmp_path / "deep.png"), 0) == 30).all()
    with pytest.raises(UserError, match=r"none\.png"):
        open_picture("style.image", str(tmp_path / "none.png"), 0)
    with pytest.raises(UserError, match=r"style.image is empty: name a picture's file"):
        open_picture("style.image", "", 0)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"style.style_layers": "relu1_1,conv2"}, "write layers as in 'relu1_1,relu2_1,relu3_1'"),
        ({"style.content_layers": ""}, "write layers as in"),
        (FEEDFORWARD | {"data.channels": 1}, "--config.data.channels=3"),
        (ADAIN | {"style.content_layers": "relu4_2"}, "--config.style.content_layers=relu4_1"),
        (ADAIN | {"data.image_size": 17}, "--config.data.image_size=16"),
        (GATYS | {"optimizer.learning_rate": 0.5}, "nothing reads it"),
        (FEEDFORWARD | {"style.content": "a.jpg"}, "nothing reads it"),
    ],
)
def test_what_cannot_be_is_refused(changes, advice):
    with pytest.raises(UserError, match=advice):
        task_of(changes)
