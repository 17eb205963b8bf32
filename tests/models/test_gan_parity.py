"""GANs' nets, penalties and losses in PyTorch (the peers of benchmarks/gan_recipes.py) with our parameters."""

import importlib
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from gormley_vision.layers.rope import grid_positions, preset_angles
from gormley_vision.losses import penalties
from gormley_vision.losses.adversarial import OBJECTIVES
from gormley_vision.models import dcgan, dense_gan, r3gan, resnet_gan, vit_gan

torch = pytest.importorskip("torch")

BATCH, LATENT, CLASSES = 4, 6, 10
GREY, COLOUR = (28, 28, 1), (32, 32, 3)
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(BATCH, LATENT)).astype(np.float32)
LABELS = np.array([3, 0, 9, 3])


def images(shape, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (BATCH, *shape)).astype(np.float32)


@pytest.fixture(scope="module")
def peers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        return importlib.import_module("gan_peers")


def first(shape):
    """An image's shape with channels first."""
    return shape[2], *shape[:2]


def initial(module, *inputs):
    """Random parameters by path: none of them 0, as zeros would hide a layer."""
    shapes = nn.unbox(jax.eval_shape(partial(module.init, train=True), jax.random.key(0), *inputs))["params"]

    def draw(path, x):
        drawn = RNG.normal(size=x.shape) * (0.7 if "class_token" in path else np.prod(x.shape[:-1]) ** -0.5)
        return jnp.asarray(drawn + ("scale" in path[-1].key), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


# ---------------------------------------------------------------------------------------------------------
# Our parameters under their names. Each net is a list of (their layer, our layer's parameters, how it is laid out).


def laid_out(kernel, before=None, after=None):
    """A kernel in their layout; [h, w, C] flattened before or after a linear map becomes [C, h, w]."""
    if kernel.ndim == 4:
        return kernel.transpose(3, 2, 0, 1)
    kernel = kernel.T  # [outputs, inputs]
    if before:
        kernel = kernel.reshape(-1, *before).transpose(0, 3, 1, 2)
    if after:
        kernel = kernel.reshape(*after, -1).transpose(2, 0, 1, 3)
    return kernel


def fill(target, values, **layout):
    """Copy the kernel or scale, and the bias, of one of our layers into one of theirs."""
    values = {name: np.asarray(x) for name, x in values.items()}
    weight = values["scale"] if "scale" in values else laid_out(values["kernel"], **layout)
    assert target.weight.numel() == weight.size
    assert (target.bias is not None) == ("bias" in values)
    with torch.no_grad():
        target.weight.copy_(torch.from_numpy(weight.copy()).reshape(target.weight.shape))
        if "bias" in values:
            target.bias.copy_(torch.from_numpy(values["bias"].copy()))


def of_kind(net, params, theirs, ours):
    """Pairs of their layers and ours of one kind, both in the order of the call."""
    layers = [module for module in net.modules() if isinstance(module, theirs)]
    names = sorted((name for name in params if name.startswith(f"{ours}_")), key=lambda name: int(name.split("_")[-1]))
    return zip(layers, [params[name] for name in names], strict=True)


def load_by_kind(net, params, base=None, before=False):
    """Copy a net whose layers come in the same order; `base` is the map that a linear layer reads or makes."""
    kinds = {"Convolution": torch.nn.Conv2d, "TransposedConvolution": torch.nn.ConvTranspose2d}
    for name, kind in {**kinds, "BatchNorm": torch.nn.BatchNorm2d}.items():
        for target, values in of_kind(net, params, kind, name):
            fill(target, values)
    for target, values in of_kind(net, params, torch.nn.Linear, "Dense"):
        fill(target, values, **({"before" if before else "after": base} if base else {}))


def load_resnet_discriminator(net, params):
    order = {"Convolution_0": params["Convolution_1"], "Convolution_1": params["Convolution_0"]}  # flax' names
    load_by_kind(net, {**params, **order})


def load_r3(net, params):
    blocks = [block for stage in net.stages for block in stage]
    for number, block in enumerate(blocks):
        values = params[f"Block_{number}"]
        fill(block.enter, {**values["in"], "bias": values["bias_1"]})
        fill(block.grouped, {"kernel": values["grouped_kernel"], "bias": values["bias_2"]})
        fill(block.leave, values["out"])
    with torch.no_grad():
        net.basis.copy_(torch.from_numpy(np.asarray(params["basis"]).transpose(2, 0, 1).copy()))
    image = "from_image" if hasattr(net, "from_image") else "to_image"
    fill(getattr(net, image), params[image])
    fill(net.head if image == "from_image" else net.enter, params["Dense_0"])


def load_encoder(net, params):
    for number, layer in enumerate(net.layers):
        values = jax.tree.map(lambda x, number=number: np.asarray(x[number]), params["encoder"])
        qkv = values["attention"]["qkv"]
        width = qkv["kernel"].shape[0]
        fill(
            layer.qkv,
            {
                "kernel": qkv["kernel"].transpose(0, 2, 1, 3).reshape(width, -1),
                "bias": qkv["bias"].transpose(1, 0, 2).ravel(),
            },
        )
        out = values["attention"]["out"]
        fill(layer.out, {"kernel": out["kernel"].reshape(width, width), "bias": out["bias"]})
        for target, ours in ((layer.norm_1, "norm_1"), (layer.norm_2, "norm_2")):
            fill(target, values[ours])
        fill(layer.mlp[0], values["mlp"]["in"])
        fill(layer.mlp[2], values["mlp"]["out"])
    fill(net.norm, params["norm"])


def load_vit_generator(net, params):
    load_encoder(net, params)
    fill(net.tokens, params["tokens"])
    fill(net.to_patches, params["to_patches"])


def load_vit_discriminator(net, params):
    load_encoder(net, params["vit"])
    fill(net.embed, {"kernel": params["vit"]["patch_embedding"], "bias": params["vit"]["patch_bias"]})
    fill(net.head, params["Dense_0"])
    with torch.no_grad():
        net.class_token.copy_(torch.from_numpy(np.asarray(params["vit"]["class_token"]).copy()))
