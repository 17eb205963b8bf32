"""VGG-19: the published numbers of parameters, torchvision's names, and the arithmetic in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from gormley_vision.errors import UserError
from gormley_vision.models.vgg import (
    CHANNELS,
    LAYERS,
    feature_maps,
    from_torchvision,
    random_weights,
    torchvision_shapes,
)
from gormley_vision.tasks import feature_layers

# Places of convolutions in torchvision's vgg19().features, counted in its printed Sequential.
PLACES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)


@pytest.mark.parametrize(("layer", "count"), [("relu4_2", 5_865_536), ("relu5_1", 12_944_960), ("relu5_4", 20_024_384)])
def test_the_published_number_of_parameters(layer, count):
    assert sum(map(math.prod, torchvision_shapes([layer]).values())) == count


def test_names_are_torchvisions_and_the_tables_of_layers_agree():
    assert tuple(torchvision_shapes(LAYERS))[::2] == tuple(f"features.{place}.weight" for place in PLACES)
    assert tuple(feature_layers.HALVINGS["vgg19"]) == LAYERS


def arrays_of(layers, seed=0):
    draw = np.random.default_rng(seed)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in torchvision_shapes(layers).items()}


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_features_are_those_of_numpy(pooling):
    """relu2_1 of 5x6 pixels: two convolutions with zeros outside, a pool that drops the last row, and a third."""
    arrays, layers = arrays_of(["relu2_1"]), ("relu1_2", "relu2_1")
    picture = np.random.default_rng(1).uniform(-1, 1, (1, 5, 6, 3))
    weights = from_torchvision(arrays, layers)
    found = feature_maps(weights, jnp.asarray(picture, jnp.float32), layers, pooling)

    def convolved(x, number):
        kernel, bias = arrays[f"features.{number}.weight"], arrays[f"features.{number}.bias"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        maps = [correlate(padded, k.astype(np.float64), mode="valid")[0] + b for k, b in zip(kernel, bias, strict=True)]
        return np.maximum(np.stack(maps), 0)

    x = ((picture[0] + 1) / 2 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = convolved(convolved(x.transpose(2, 0, 1), 0), 2)
    np.testing.assert_allclose(found["relu1_2"][0].transpose(2, 0, 1), x, rtol=1e-4, atol=1e-3)
    quarters = x[:, :4, :6].reshape(64, 2, 2, 3, 2)
    x = convolved(quarters.max((2, 4)) if pooling == "max" else quarters.mean((2, 4)), 5)
    np.testing.assert_allclose(found["relu2_1"][0].transpose(2, 0, 1), x, rtol=1e-4, atol=1e-2)


def test_only_the_layers_that_are_asked_for_are_returned_and_each_block_halves():
    weights = random_weights(0, ["relu3_1"])
    shapes = jax.eval_shape(lambda x: feature_maps(weights, x, ("relu1_1", "relu3_1")), jnp.zeros((2, 17, 12, 3)))
    assert {name: x.shape for name, x in shapes.items()} == {"relu1_1": (2, 17, 12, 64), "relu3_1": (2, 4, 3, 256)}
    with pytest.raises(UserError, match="3x12 pixels are too small for relu3_1"):
        jax.eval_shape(lambda x: feature_maps(weights, x, ("relu3_1",)), jnp.zeros((1, 3, 12, 3)))


def test_random_filters_keep_the_second_moment_and_depend_on_seed_and_place_alone():
    weights = random_weights(3, ["relu3_1"])
    assert weights.keys() == from_torchvision(arrays_of(["relu3_1"]), ["relu3_1"]).keys()
    inputs = 3
    for layer in LAYERS[:5]:
        kernel = weights[layer.replace("relu", "conv") + "/kernel"]
        assert kernel.shape == (3, 3, inputs, CHANNELS[layer])
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * inputs)), rtol=0.05)
        inputs = CHANNELS[layer]
    np.testing.assert_array_equal(weights["conv1_2/kernel"], random_weights(3, ["relu1_2"])["conv1_2/kernel"])
    assert (weights["conv1_2/kernel"] != random_weights(4, ["relu1_2"])["conv1_2/kernel"]).mean() > 0.99
    noise = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    maps = feature_maps(weights, noise, LAYERS[:2])
    moments = [float(jnp.mean(jnp.square(maps[layer][:, 1:-1, 1:-1]))) for layer in LAYERS[:2]]
    np.testing.assert_allclose(moments[1] / moments[0], 1, atol=0.25)
