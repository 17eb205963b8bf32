"""Super-resolution nets: published counts, what their parts do by law, and the same nets in PyTorch."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers.resampling import imresize
from gormley_vision.models.super_resolution import EDSR, ESPCN, FSRCNN

KEY = jax.random.key(0)
SMALL_EDSR = {"features": 4, "blocks": 1}


def parameters(net, channels):
    variables = jax.eval_shape(partial(net.init, train=True), KEY, jnp.zeros((1, 8, 8, channels)))
    return jax.tree_util.tree_leaves_with_path(nn.unbox(variables))


def drawn(net, channels, deviation=0.3):
    """Parameters of which none is zero, for images of 6 x 7 pixels."""
    return {
        "params": jax.tree.map(
            lambda leaf: np.random.default_rng(leaf.size).normal(0, deviation, leaf.shape).astype(np.float32),
            nn.unbox(jax.eval_shape(partial(net.init, train=False), KEY, jnp.zeros((1, 6, 7, channels))))["params"],
        )
    }


def images(channels):
    return jax.random.normal(KEY, (2, 6, 7, channels))


@pytest.mark.parametrize(
    ("net", "channels", "expected"),
    [
        # Layer by layer from yjn870/ESPCN-pytorch and XPixelGroup/BasicSR, basicsr/archs/edsr_arch.py.
        (ESPCN(scale=2), 1, 21_284),
        (ESPCN(scale=3), 1, 22_729),
        (ESPCN(scale=4), 1, 24_752),
        (EDSR(features=16, blocks=4, scale=2), 3, 31_043),
        (EDSR(features=16, blocks=4, scale=4), 3, 40_323),
        (EDSR(features=32, blocks=4, scale=2), 3, 121_987),
        (EDSR(features=32, blocks=4, scale=4), 3, 158_979),
        (EDSR(features=32, blocks=8, scale=2), 3, 195_971),
        (EDSR(features=32, blocks=8, scale=4), 3, 232_963),
        (EDSR(scale=2), 3, 1_369_859),
        (EDSR(scale=3), 3, 1_554_499),
        (EDSR(scale=4), 3, 1_517_571),
        (EDSR(features=256, blocks=32, scale=2), 3, 40_729_603),
        (EDSR(features=256, blocks=32, scale=3), 3, 43_680_003),
        # One more shuffle by 2 than at scale 2.
        (EDSR(features=256, blocks=32, scale=4), 3, 40_729_603 + (9 * 256 + 1) * 1024),
    ],
)
def test_published_counts(net, channels, expected):
    assert sum(math.prod(leaf.shape) for _, leaf in parameters(net, channels)) == expected


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fsrcnn_has_12464_weights_at_each_scale(scale):
    """The paper counts kernels alone; the biases are one for each of 173 maps, the slopes for each but the last."""
    found = parameters(FSRCNN(scale=scale), 1)
    assert sum(math.prod(leaf.shape) for path, leaf in found if path[-1].key == "kernel") == 12_464
    assert sum(math.prod(leaf.shape) for _, leaf in found) == 12_464 + 173 + 172


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    "net", [ESPCN, FSRCNN, partial(EDSR, **SMALL_EDSR), partial(EDSR, **SMALL_EDSR, bicubic_skip=True)]
)
def test_shape_and_type(net, scale):
    net, x = net(scale=scale, dtype=jnp.bfloat16), jnp.zeros((2, 5, 7, 3), jnp.bfloat16)
    enlarged = jax.eval_shape(partial(net.init_with_output, train=True), KEY, x)[0]
    assert (enlarged.shape, enlarged.dtype) == ((2, 5 * scale, 7 * scale, 3), jnp.float32)


@pytest.mark.parametrize("scale", [0, 5, 6])
def test_a_scale_that_edsr_has_no_shuffles_for_is_refused(scale):
    with pytest.raises(ValueError, match=f"by 3 or by a power of 2, not by {scale}"):
        EDSR(scale=scale, **SMALL_EDSR).init(KEY, jnp.zeros((1, 4, 4, 3)), train=False)


@pytest.mark.parametrize("scale", [2, 3])
def test_with_a_bicubic_skip_the_untrained_net_is_bicubic_and_can_learn(scale):
    net, x = EDSR(scale=scale, **SMALL_EDSR, bicubic_skip=True), images(3)
    variables = nn.unbox(jax.jit(partial(net.init, train=True))(KEY, x))
    bicubic = jax.jit(lambda x: imresize(x, scale))(x)
    np.testing.assert_array_equal(jax.jit(partial(net.apply, train=True))(variables, x), bicubic)

    def loss(variables):
        return jnp.mean((net.apply(variables, x, train=True) - bicubic - 1) ** 2)

    last = f"Convolution_{2 * 1 + 3}"
    gradient = jax.jit(jax.grad(loss))(variables)["params"][last]
    assert gradient["kernel"].all()
    np.testing.assert_allclose(gradient["bias"], np.full(3, -2 / 3), rtol=1e-5)  # of a mean over 3 channels


def test_edsr_adds_a_scaled_residual_and_is_linear_after_it():
    """One block's residual enters the output times its scale: f(0.1) - f(0) = 0.1 (f(1) - f(0)).

    Without the convolution after the blocks the first map is left, so that the output still depends on the image.
    """
    variables, x = drawn(EDSR(**SMALL_EDSR), 3), images(3)
    apply = [jax.jit(partial(EDSR(**SMALL_EDSR, residual_scale=s).apply, train=False)) for s in (0.0, 0.1, 1.0)]
    none, tenth, whole = (enlarge(variables, x) for enlarge in apply)
    assert jnp.abs(whole - none).max() > 1
    np.testing.assert_allclose(tenth - none, 0.1 * (whole - none), atol=1e-4)
    variables["params"]["Convolution_3"] = jax.tree.map(np.zeros_like, variables["params"]["Convolution_3"])
    assert jnp.abs(apply[0](variables, x) - apply[0](variables, -x)).max() > 1


def test_espcn_by_hand():
    """Kernels of one tap in the middle: pixel (a, b) of each square is 2 a + b + 1 times tanh(tanh(x))."""
    net, x = ESPCN(scale=2), images(1)
    params = jax.tree.map(np.zeros_like, drawn(net, 1)["params"])
    params["Convolution_0"]["kernel"][2, 2, 0, 0] = params["Convolution_1"]["kernel"][1, 1, 0, 0] = 1
    params["Convolution_2"]["kernel"][1, 1, 0] = [1, 2, 3, 4]
    enlarged = jax.jit(partial(net.apply, train=False))({"params": params}, x)
    expected = np.kron(np.tanh(np.tanh(x[..., 0])), np.array([[[1, 2], [3, 4]]]))
    np.testing.assert_allclose(enlarged[..., 0], expected, rtol=1e-5)


def test_fsrcnn_is_linear_if_all_slopes_are_1():
    """Without biases; with slopes of 1/4 a sign makes a difference, but f(2x) = 2 f(x)."""
    net, x = FSRCNN(features=4, shrunk=2, mapping=1), images(1)
    variables = nn.unbox(jax.jit(partial(net.init, train=False))(KEY, x))  # biases start at 0
    apply = jax.jit(partial(net.apply, train=False))
    enlarged = apply(variables, x)
    np.testing.assert_allclose(apply(variables, 2 * x), 2 * enlarged, rtol=1e-4, atol=1e-7)
    assert jnp.abs(apply(variables, -x) + enlarged).max() > 0.1 * jnp.abs(enlarged).max()
    last = variables["params"]["TransposedConvolution_0"]
    raised = variables["params"] | {"TransposedConvolution_0": last | {"bias": jnp.ones(1)}}
    np.testing.assert_allclose(apply({"params": raised}, x), enlarged + 1, rtol=1e-5)
    params = {name: jnp.ones_like(p) if name.startswith("slope") else p for name, p in variables["params"].items()}
    np.testing.assert_allclose(apply({"params": params}, -x), -apply({"params": params}, x), rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------------------------------------------------
# The same nets in PyTorch, in the order of our layers.


def copied(layer, values):
    import torch

    for name, value in (("weight", values["kernel"].transpose(3, 2, 0, 1)), ("bias", values["bias"])):
        assert getattr(layer, name).shape == value.shape
        getattr(layer, name).data = torch.from_numpy(value.copy())
    return layer


def peer(torch, net, params, x):
    """Apply our parameters to `x` [B, C, H, W] with PyTorch's layers."""
    unit = torch.nn
    ours = [params[f"Convolution_{i}"] for i in range(sum(name.startswith("Convolution") for name in params))]
    layers = []
    for values in ours:
        size, _, inputs, outputs = values["kernel"].shape
        layers.append(copied(unit.Conv2d(inputs, outputs, size, padding="same"), values))
    shuffle = unit.PixelShuffle(net.scale)
    if isinstance(net, ESPCN):
        return unit.Sequential(layers[0], unit.Tanh(), layers[1], unit.Tanh(), layers[2], shuffle)(x)
    if isinstance(net, FSRCNN):
        for i, layer in enumerate(layers):
            x = torch.nn.functional.prelu(layer(x), torch.from_numpy(params[f"slope_{i}"]))
        s = net.scale
        enlarge = unit.ConvTranspose2d(net.features, 1, 9, s, padding=4, output_padding=s - 1)
        return copied(enlarge, params["TransposedConvolution_0"])(x)
    first = y = layers[0](x)
    for i in range(1, 2 * net.blocks, 2):
        y = y + net.residual_scale * layers[i + 1](layers[i](y).relu())
    *enlarge, last = layers[2 * net.blocks + 2 :]
    y = first + layers[2 * net.blocks + 1](y)
    for layer in enlarge:
        y = unit.functional.pixel_shuffle(layer(y), 3 if net.scale == 3 else 2)
    return last(y)


@pytest.mark.parametrize(
    ("net", "channels"),
    [
        (ESPCN(scale=3), 2),
        (FSRCNN(scale=2, features=5, shrunk=3, mapping=2), 1),
        (FSRCNN(scale=3, features=5, shrunk=3, mapping=2), 1),
        (FSRCNN(scale=4, features=5, shrunk=3, mapping=2), 1),
        (EDSR(scale=3, features=4, blocks=2, residual_scale=0.5), 3),
        (EDSR(scale=4, features=4, blocks=2), 3),
    ],
)
def test_equals_the_same_net_in_pytorch(net, channels):
    torch = pytest.importorskip("torch")
    x, variables = images(channels), drawn(net, channels, 0.1)
    with torch.no_grad():
        expected = peer(torch, net, variables["params"], torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))).numpy()
    enlarged = jax.jit(partial(net.apply, train=False))(variables, x)
    np.testing.assert_allclose(enlarged, expected.transpose(0, 2, 3, 1), atol=1e-5)
    assert np.abs(expected).max() > 0.05
