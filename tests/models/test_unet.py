"""The U-Net: published counts, what each skip carries, what its norms depend on, and the same net in PyTorch."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.layers.gan import instance_norm
from gormley_vision.models.unet import UNet

KEY = jax.random.key(0)


def parameters(net, shape):
    variables = jax.eval_shape(partial(net.init, train=True), KEY, jnp.zeros(shape))
    assert set(variables) == {"params"}  # no running statistics
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(
    ("levels", "width", "norm", "channels", "expected"),
    [
        # Layer by layer from junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py; the last five for 32 pixels.
        (8, 64, "batch", (3, 3), 54_413_955),
        (8, 64, "instance", (3, 3), 54_409_603),
        (8, 64, "batch", (1, 2), 54_409_858),
        (8, 64, "batch", (1, 3), 54_411_907),
        (7, 64, "batch", (3, 3), 41_828_995),
        (5, 16, "batch", (3, 3), 1_043_619),
        (5, 24, "batch", (3, 3), 2_345_715),
        (5, 32, "batch", (3, 3), 4_168_003),
        (5, 48, "batch", (3, 3), 9_373_155),
        (5, 64, "batch", (3, 3), 16_659_075),
    ],
)
def test_published_counts(levels, width, norm, channels, expected):
    net = UNet(out_channels=channels[1], levels=levels, width=width, norm=norm)
    assert parameters(net, (1, 2**levels, 2**levels, channels[0])) == expected


def test_without_norms_convolutions_have_the_biases_that_instance_norm_leaves():
    counts = {norm: parameters(UNet(levels=3, width=2, norm=norm), (1, 8, 8, 3)) for norm in ("none", "instance")}
    assert counts["none"] == counts["instance"]


def test_shape_and_type():
    net = UNet(out_channels=2, levels=3, width=2, dtype=jnp.bfloat16)
    images = jax.eval_shape(partial(net.init_with_output, train=False), KEY, jnp.zeros((2, 16, 24, 5), jnp.bfloat16))[0]
    assert (images.shape, images.dtype) == ((2, 16, 24, 2), jnp.float32)


def test_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match=r"3 levels needs sides that are multiples of 8, not 16x20"):
        UNet(levels=3, width=2).init(KEY, jnp.zeros((1, 16, 20, 3)), train=False)


def test_the_skip_of_each_level_carries_its_own_map():
    """With all below the n-th skip cut off, the pixel after the centre sees a square of 2^(n + 2) - 2 pixels.

    By hand: it depends on the 2 pixels beside the centre of the next map below, and so do these; a convolution turns m
    pixels into 2m + 2: after n of them 2^n * 2 + 2^(n + 1) - 2. The bottleneck of 4 levels is the fourth such map.
    """
    size = 64
    net = UNet(out_channels=1, levels=4, width=2, norm="none")
    x = jnp.ones((1, size, size, 1))
    params = nn.unbox(jax.jit(partial(net.init, train=False))(KEY, x))["params"]
    params = jax.tree.map(jnp.abs, params)  # so that no unit is off and no gradients cancel

    @jax.jit
    def gradient(params):
        return jax.grad(lambda x: net.apply({"params": params}, x, train=False)[0, size // 2, size // 2, 0])(x)

    for n in (1, 2, 3, 4):
        cut = dict(params)
        if n < 4:
            layer = f"TransposedConvolution_{4 - n}"  # reads the n-th skip, then the map from below
            kernel = params[layer]["kernel"]
            cut[layer] = {**params[layer], "kernel": kernel.at[..., kernel.shape[-1] // 2 :].set(0)}
        inside = slice(size // 2 + 1 - 2 ** (n + 1), size // 2 - 1 + 2 ** (n + 1))
        expected = np.zeros((size, size), bool)
        expected[inside, inside] = True
        np.testing.assert_array_equal(np.asarray(gradient(cut))[0, :, :, 0] != 0, expected)


def test_batch_norm_of_one_image_is_instance_norm_and_of_two_it_mixes_them():
    x = jax.random.normal(KEY, (2, 16, 16, 3))
    batch, instance = (UNet(levels=3, width=2, norm=norm) for norm in ("batch", "instance"))
    variables = nn.unbox(jax.jit(partial(instance.init, train=False))(KEY, x))
    apply = {net: jax.jit(partial(net.apply, train=False)) for net in (batch, instance)}
    together = apply[instance](variables, x)
    alone = apply[instance](variables, x[:1])
    np.testing.assert_allclose(alone, together[:1], atol=1e-5)
    # The same kernels under BatchNorm, whose scales are 1 and biases 0. Outside the norms the biases of `init` are 0.
    expected = jax.eval_shape(partial(batch.init, train=False), KEY, x)["params"]
    params = {name: {"kernel": layer["kernel"]} for name, layer in variables["params"].items()}
    params["TransposedConvolution_2"] = variables["params"]["TransposedConvolution_2"]
    for name, layer in expected.items():
        if name.startswith("StatelessBatchNorm"):
            features = nn.unbox(layer)["scale"].shape
            params[name] = {"scale": jnp.ones(features), "bias": jnp.zeros(features)}
    params = {"params": params}
    np.testing.assert_allclose(apply[batch](params, x[:1]), alone, atol=1e-5)
    assert jnp.abs(apply[batch](params, x)[:1] - alone).max() > 1e-3


def test_instance_norm_by_hand():
    """One channel of values 1, 3 and one of 5, 5, as two pixels; and a map of one pixel, which becomes 0."""
    x = jnp.array([[1.0, 5.0], [3.0, 5.0]]).reshape(1, 1, 2, 2)
    one = 1 / math.sqrt(1 + 1e-5)
    np.testing.assert_allclose(instance_norm(x)[0, 0], [[-one, 0], [one, 0]], rtol=1e-6)
    np.testing.assert_array_equal(instance_norm(x[:, :, :1]), jnp.zeros((1, 1, 1, 2)))


def test_dropout_follows_the_inner_levels_alone():
    """At 256 pixels, the maps of 4, 8 and 16 pixels on the way up, of 512 channels; at 32 pixels none."""

    def dropped(levels):
        net = UNet(levels=levels)
        x = jnp.zeros((1, 2**levels, 2**levels, 3))
        record = {"capture_intermediates": lambda module, _: isinstance(module, nn.Dropout)}
        found = jax.eval_shape(partial(net.init, train=True, **record), KEY, x)
        return [leaf.shape[1:] for leaf in jax.tree.leaves(found.get("intermediates", {}))]

    assert dropped(8) == [(4, 4, 512), (8, 8, 512), (16, 16, 512)]
    assert dropped(7) == [(4, 4, 512), (8, 8, 512)]
    assert dropped(5) == []


def test_dropout_acts_in_training_alone():
    net = UNet(levels=6, width=1, dropout=0.5)
    x = jax.random.normal(KEY, (1, 64, 64, 1))
    variables = jax.jit(partial(net.init, train=False))(KEY, x)
    train = jax.jit(lambda key: net.apply(variables, x, train=True, rngs={"dropout": key}))
    first, second = (train(jax.random.key(seed)) for seed in (1, 2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, train(jax.random.key(1)))
    jax.eval_shape(lambda: net.apply(variables, x, train=False))  # needs no rng


def peer(torch, levels, width, norm):
    """The same net in PyTorch, as blocks within blocks: each returns its input beside what it makes of it."""
    unit = torch.nn

    class Block(unit.Module):
        def __init__(self, level):
            super().__init__()
            outer, inner = (width * min(2**i, 8) for i in (level - 1, level))
            bottom = level == levels - 1
            normed = {"batch": unit.BatchNorm2d, "instance": unit.InstanceNorm2d}[norm]
            bias = norm == "instance"
            down = [unit.LeakyReLU(0.2), unit.Conv2d(outer, inner, 4, 2, 1, bias=bias)]
            up = [unit.ReLU(), unit.ConvTranspose2d(inner * (2 - bottom), outer, 4, 2, 1, bias=bias), normed(outer)]
            middle = [] if bottom else [normed(inner), Block(level + 1)]
            self.layers = unit.Sequential(*down, *middle, *up)

        def forward(self, x):
            return torch.cat([x, self.layers(x)], 1)

    ends = unit.Conv2d(3, width, 4, 2, 1, bias=norm == "instance"), unit.ConvTranspose2d(2 * width, 3, 4, 2, 1)
    return unit.Sequential(ends[0], Block(1), unit.ReLU(), ends[1], unit.Tanh())


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_equals_the_same_net_in_pytorch(norm):
    torch = pytest.importorskip("torch")
    net = UNet(levels=5, width=2, norm=norm)
    x = jax.random.normal(KEY, (2, 32, 32, 3))
    params = nn.unbox(jax.jit(partial(net.init, train=False))(KEY, x))["params"]
    drawn = iter(np.random.default_rng(0).normal(0, 0.3, 10**6))
    params = jax.tree.map(lambda a: np.array([next(drawn) for _ in range(a.size)], np.float32).reshape(a.shape), params)
    theirs = peer(torch, 5, 2, norm).train()
    # `modules` walks in the order of the forward pass: both number layers of a kind in it.
    kinds = {"Convolution": "Conv2d", "TransposedConvolution": "ConvTranspose2d", "StatelessBatchNorm": "BatchNorm2d"}
    for ours, name in kinds.items():
        modules = [module for module in theirs.modules() if type(module).__name__ == name]
        assert len(modules) == sum(layer.startswith(ours) for layer in params)
        for number, module in enumerate(modules):
            layer = params[f"{ours}_{number}"]
            weight = layer["kernel"].transpose(3, 2, 0, 1) if "kernel" in layer else layer["scale"]
            module.weight.data = torch.from_numpy(weight.copy())
            assert (module.bias is None) == ("bias" not in layer)
            if module.bias is not None:
                module.bias.data = torch.from_numpy(layer["bias"])
    expected = theirs(torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())).detach().numpy()
    images = jax.jit(partial(net.apply, train=False))({"params": params}, x)
    np.testing.assert_allclose(images, expected.transpose(0, 2, 3, 1), atol=2e-5)
    assert np.abs(expected).max() > 0.5
