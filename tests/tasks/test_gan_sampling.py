"""Truncation and standing statistics of a GAN's samples, and plots of points."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gormley_vision.config import default_config
from gormley_vision.errors import UserError
from gormley_vision.experiment import described, make_task
from gormley_vision.randomness import named_key, run_key
from gormley_vision.samples import FIELD, Points, field_points
from gormley_vision.tasks.gan import sampling
from gormley_vision.training.task import first_state


def gan_of(**changes):
    config = default_config("gan")
    flat = {"data.image_size": 16, "generator.width": 2, "generator.latent_size": 3, "discriminator.width": 2}
    config.update_from_flattened_dict(flat | changes)
    return make_task(config.to_dict(), described(config, (), 100))


@pytest.fixture(scope="module")
def game():
    gan = gan_of()
    return gan, jax.jit(partial(first_state, gan))(jax.random.key(0))


def test_truncated_noise_is_normal_within_its_bounds(game):
    gan, _ = game
    noise = sampling._noise(gan, 3, 0.5, 2000)
    assert np.abs(noise).max() <= 0.5
    # The variance of a standard normal within +-a: 1 - 2 a phi(a) / (2 Phi(a) - 1), here 0.0810.
    assert noise.var() == pytest.approx(0.0810, rel=0.05)
    np.testing.assert_array_equal(noise[:100], sampling._noise(gan, 3, 0.5, 100))
    assert np.abs(sampling._noise(gan, 3, 0.0, 2000)).max() > 3


def test_uniform_noise_has_variance_1_and_no_truncation():
    gan = gan_of(**{"generator.latent": "uniform"})
    noise = sampling._noise(gan, 3, 0.0, 2000)
    assert np.abs(noise).max() <= 3**0.5
    assert noise.var() == pytest.approx(1, rel=0.05)
    with pytest.raises(UserError, match="--truncation"):
        sampling._noise(gan, 3, 0.5, 10)


def test_a_walk_stays_within_uniform_noise():
    ends = sampling._noise(gan_of(**{"generator.latent": "uniform"}), 0, 0.0, 2)
    walk = sampling.straight(*ends, np.linspace(0, 1, 9))
    assert np.abs(walk).max() <= 3**0.5
    np.testing.assert_allclose(walk[[0, 4, 8]], [ends[0], ends.mean(0), ends[1]], rtol=1e-6)


def test_standing_statistics_are_the_means_of_batches(game):
    """Of the first layer's outputs, computed here: noise times its kernel, by batch, then averaged."""
    gan, state = game
    found = sampling._with_standing_statistics(gan, state.ema, 5, 3)["batch_stats"]["BatchNorm_0"]
    kernel = np.asarray(state.ema["params"]["Dense_0"]["kernel"])
    means, variances = [], []
    for number in range(3):
        noise = jax.random.normal(named_key(run_key(5), "noise/standing", number), (sampling.BATCH, 3))
        maps = (np.asarray(noise) @ kernel).reshape(-1, found["mean"].shape[0])
        means.append(maps.mean(0))
        variances.append(maps.var(0))
    np.testing.assert_allclose(found["mean"], np.mean(means, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], np.mean(variances, 0), rtol=1e-4)
    images = [gan.sample(state, num=4, seed=0, standing_statistics=n).images for n in (0, 3)]
    assert not np.allclose(*images)


def test_standing_statistics_see_every_class(monkeypatch):
    """Of 100 classes batches of 64 see 0 to 63, then 64 to 99 and 0 to 27; or one class alone."""
    config = default_config("gan")
    flat = {"data.image_size": 16, "generator.width": 2, "generator.latent_size": 3, "gan.conditional": True}
    config.update_from_flattened_dict(flat)
    gan = make_task(config.to_dict(), described(config, tuple(map(str, range(100))), 100))
    state, seen = jax.jit(partial(first_state, gan))(jax.random.key(0)), []
    choose = sampling.choose_labels

    def watched(*about):
        seen.append(choose(*about))
        return seen[-1]

    monkeypatch.setattr(sampling, "choose_labels", watched)
    for label in ("", "7"):
        sampling._with_standing_statistics(gan, state.ema, 0, 2, label)
    assert set(np.concatenate(seen[:2]).tolist()) == set(range(100))
    assert set(np.concatenate(seen[2:]).tolist()) == {7}


def test_a_generator_without_batch_norm_has_no_statistics():
    gan = gan_of(**{"generator.architecture": "dense"})
    state = jax.jit(partial(first_state, gan))(jax.random.key(0))
    with pytest.raises(UserError, match="no BatchNorm"):
        gan.sample(state, num=1, seed=0, standing_statistics=2)


def test_a_plot_shows_points_where_they_are(tmp_path):
    """A point at x = 1, y = 2 of extent 4 lies right of the middle and above it; one outside is left out."""
    points = Points(np.array([[1.0, 2.0], [9.0, 0.0], [np.nan, 0.0]]), 4.0)
    plot = points.grid()
    dark = np.argwhere((plot == 0).all(-1))
    assert dark.min(0).tolist() == [64, 160]  # a quarter down, 5/8 to the right, of 256
    assert len(dark) == 4
    points.write(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (256, 256)
    points.write(tmp_path / "points.csv")
    assert (tmp_path / "points.csv").read_text().splitlines()[0] == "1.0,2.0"
    points.write(tmp_path / "points.npz")
    assert np.load(tmp_path / "points.npz")["vectors"].shape == (3, 2)
    Points(np.ones((2, 2)), 4.0, labels=np.array([3, 5])).write(tmp_path / "labelled.csv")
    assert (tmp_path / "labelled.csv").read_text() == "1.0,1.0,3\n1.0,1.0,5\n"
    with pytest.raises(UserError, match="csv"):
        points.write(tmp_path / "points.gif")


def test_a_field_is_red_where_logits_are_high():
    square = field_points(2.0)
    assert square[0].tolist() == [-2 + 2 / FIELD, 2 - 2 / FIELD]  # top left
    plot = Points(np.zeros((0, 2)), 2.0, square[:, 0].reshape(FIELD, FIELD)).grid()
    left, right = plot[128, 5], plot[128, 250]
    assert left[2] == 255 > left[0]
    assert right[0] == 255 > right[2]


def test_a_vector_game_learns_and_shows_its_discriminator(game):
    """Previews hold the points and D's logits at the square; a step moves the generator towards the data's side."""
    changes = {"gan.example": "vector", "generator.architecture": "dense", "discriminator.architecture": "dense"}
    changes |= {f"{player}_optimizer.learning_rate": 5e-3 for player in ("generator", "discriminator")}
    gan = gan_of(
        **changes, **{"data.batch_size": 16, "log.samples": 10, "log.extent": 2.0, "gan.ema_half_life": "64 images"}
    )
    state = jax.jit(partial(first_state, gan))(jax.random.key(0))
    step = jax.jit(gan.train_step)
    batch = {"vector": jnp.full((1, 16, 2), 1.5)}
    for _ in range(200):
        state, _, _ = step(state, batch, jax.random.key(1))
    shown = jax.jit(gan.preview)(state, jax.random.key(1))
    points = gan.show(np.asarray(shown))
    assert points.values.shape == (10, 2)
    assert points.field.shape == (FIELD, FIELD)
    assert float(points.values.mean()) > 0.5
    judged = gan.discriminator.apply(state.discriminator.variables, field_points(2.0)[:3], None, train=False)
    np.testing.assert_allclose(points.field.ravel()[:3], judged, rtol=1e-4, atol=1e-5)
