"""GANs' nets, losses and penalties in plain PyTorch with our parameters: the peers of benchmarks/gan_recipes.py."""

import copy
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.experiment import described, make_task
from gormley_vision.losses import penalties
from gormley_vision.losses.adversarial import OBJECTIVES
from gormley_vision.models import dcgan, dense_gan, r3gan, resnet_gan, vit_gan
from gormley_vision.training.sharding import Shardings, make_mesh

torch = pytest.importorskip("torch")

BATCH, LATENT, CLASSES = 4, 6, 10
GREY, COLOUR = (28, 28, 1), (32, 32, 3)
LABELS = np.array([3, 0, 9, 3])


@pytest.fixture(scope="module")
def benchmarks():
    """`import_module` with benchmarks/ on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module


# ---------------------------------------------------------------------------------------------------------
# Our parameters in their layers. Copying is linear and loses nothing, so it also takes gradients.


def laid_out(kernel, inputs, outputs):
    """A kernel in their layout; `inputs` or `outputs` is the map [h, w] that a linear layer reads or makes."""
    if kernel.ndim == 4:
        return kernel.transpose(3, 2, 0, 1)
    kernel = kernel.T
    if inputs:
        kernel = kernel.reshape(-1, *inputs, kernel.shape[1] // np.prod(inputs)).transpose(0, 3, 1, 2)
    if outputs:
        kernel = kernel.reshape(*outputs, -1, kernel.shape[1]).transpose(2, 0, 1, 3)
    return kernel


def copy_layer(target, values, inputs=(), outputs=()):
    """Copy the kernel or the scale, and the bias, of one of our layers."""
    values = {name: np.asarray(x) for name, x in values.items()}
    weight = values["scale"] if "scale" in values else laid_out(values["kernel"], inputs, outputs)
    assert (target.bias is not None) == ("bias" in values)
    copy_array(target.weight, weight.reshape(target.weight.shape))
    if "bias" in values:
        bias = values["bias"].reshape(*outputs, -1)
        copy_array(target.bias, bias.transpose(2, 0, 1).ravel() if outputs else bias)


def copy_array(target, values):
    assert target.shape == values.shape
    with torch.no_grad():
        target.copy_(torch.from_numpy(np.array(values)))


def copy_by_kind(net, params, inputs=(), outputs=()):
    """Copy a net whose layers of each kind are called in the order of their names' numbers."""
    kinds = {
        "Convolution": torch.nn.Conv2d,
        "TransposedConvolution": torch.nn.ConvTranspose2d,
        "BatchNorm": torch.nn.BatchNorm2d,
        "Dense": torch.nn.Linear,
    }
    for kind, module in kinds.items():
        ours = [params[f"{kind}_{i}"] for i in range(len(params)) if f"{kind}_{i}" in params]
        theirs = [layer for layer in net.modules() if isinstance(layer, module)]
        for target, values in zip(theirs, ours, strict=True):
            copy_layer(target, values, **({"inputs": inputs, "outputs": outputs} if kind == "Dense" else {}))


def copy_resnet_discriminator(net, params):
    # flax names a layer when it is made, and the first block makes its outer convolution first.
    copy_by_kind(net, params | {"Convolution_0": params["Convolution_1"], "Convolution_1": params["Convolution_0"]})


def copy_r3(net, params):
    for number, block in enumerate(block for stage in net.stages for block in stage):
        values = params[f"Block_{number}"]
        copy_layer(block.enter, {**values["in"], "bias": values["bias_1"]})
        copy_layer(block.grouped, {"kernel": values["grouped_kernel"], "bias": values["bias_2"]})
        copy_layer(block.leave, values["out"])
    copy_array(net.basis, params["basis"].transpose(2, 0, 1))
    generates = "to_image" in params
    copy_layer(net.to_image if generates else net.from_image, params["to_image" if generates else "from_image"])
    copy_layer(net.enter if generates else net.head, params["Dense_0"])


def copy_encoder(net, params):
    for number, layer in enumerate(net.layers):
        ours = jax.tree.map(lambda x, number=number: x[number], params["encoder"])
        qkv, out = ours["attention"]["qkv"], ours["attention"]["out"]
        width = len(qkv["kernel"])
        kernel = qkv["kernel"].transpose(0, 2, 1, 3).reshape(width, -1)  # of [D, K, 3, Dh]
        copy_layer(layer.qkv, {"kernel": kernel, "bias": qkv["bias"].transpose(1, 0, 2).ravel()})
        copy_layer(layer.out, {"kernel": out["kernel"].reshape(width, width), "bias": out["bias"]})
        copy_layer(layer.norm_1, ours["norm_1"])
        copy_layer(layer.norm_2, ours["norm_2"])
        copy_layer(layer.mlp[0], ours["mlp"]["in"])
        copy_layer(layer.mlp[2], ours["mlp"]["out"])
    copy_layer(net.norm, params["norm"])


def copy_vit_generator(net, params):
    copy_encoder(net, params)
    copy_layer(net.tokens, params["tokens"])
    copy_layer(net.to_patches, params["to_patches"])


def copy_vit_discriminator(net, params):
    copy_encoder(net, params["vit"])
    copy_layer(net.embed, {"kernel": params["vit"]["patch_embedding"], "bias": params["vit"]["patch_bias"]})
    copy_array(net.class_token, params["vit"]["class_token"])
    copy_layer(net.head, params["Dense_0"])


# ---------------------------------------------------------------------------------------------------------
# The nets, at small widths.


class Case(NamedTuple):
    ours: Any
    theirs: Callable  # of the module `gan_peers`
    copied: Callable
    shape: tuple[int, ...]  # of an image
    generates: bool
    labelled: bool = False


def first(shape):
    return shape[2], *shape[:2]


CASES = {
    "dense G": Case(
        dense_gan.Generator(GREY, 24),
        lambda peers: peers.DenseGenerator(first(GREY), LATENT, 24),
        copy_by_kind,
        GREY,
        True,
    ),
    "maxout D": Case(
        dense_gan.Discriminator(12),
        lambda peers: peers.MaxoutDiscriminator(first(GREY), 12, 0, 0),
        copy_by_kind,
        GREY,
        False,
    ),
    "DCGAN G": Case(
        dcgan.Generator((28, 28, 3), 4, classes=CLASSES),
        lambda peers: peers.DCGANGenerator((3, 28, 28), LATENT, 4, CLASSES),
        partial(copy_by_kind, outputs=(7, 7)),
        (28, 28, 3),
        True,
        labelled=True,
    ),
    "DCGAN D": Case(
        dcgan.Discriminator(4, norm="none"),
        lambda peers: peers.DCGANDiscriminator((3, 28, 28), 4, "none"),
        partial(copy_by_kind, inputs=(7, 7)),
        (28, 28, 3),
        False,
    ),
    "AC-GAN D": Case(
        dcgan.Discriminator(4, classes=CLASSES, conditioning="classifier"),
        lambda peers: peers.DCGANDiscriminator((1, 28, 28), 4, "batch", CLASSES),
        partial(copy_by_kind, inputs=(7, 7)),
        GREY,
        False,
        labelled=True,
    ),
    "ResNet G": Case(
        resnet_gan.Generator(COLOUR, 8),
        lambda peers: peers.ResNetGenerator(first(COLOUR), LATENT, 8),
        partial(copy_by_kind, outputs=(4, 4)),
        COLOUR,
        True,
    ),
    "ResNet D": Case(
        resnet_gan.Discriminator(8),
        lambda peers: peers.ResNetDiscriminator(first(COLOUR), 8, "sum"),
        copy_resnet_discriminator,
        COLOUR,
        False,
    ),
    "ResNet D, mean": Case(
        resnet_gan.Discriminator(8, pooling="mean"),
        lambda peers: peers.ResNetDiscriminator(first(COLOUR), 8, "mean"),
        copy_resnet_discriminator,
        COLOUR,
        False,
    ),
    "R3GAN G": Case(
        r3gan.Generator(COLOUR, 32, 1),
        lambda peers: peers.R3Generator(first(COLOUR), LATENT, 32, 1),
        copy_r3,
        COLOUR,
        True,
    ),
    "R3GAN D": Case(
        r3gan.Discriminator(32, 1), lambda peers: peers.R3Discriminator(first(COLOUR), 32, 1), copy_r3, COLOUR, False
    ),
    "ViT G": Case(
        vit_gan.Generator(COLOUR, 32, 2, 2, 8),
        lambda peers: peers.ViTGenerator(first(COLOUR), LATENT, 32, 2, 2, 8),
        copy_vit_generator,
        COLOUR,
        True,
    ),
    "ViT D": Case(
        vit_gan.Discriminator(32, 2, 2, 8),
        lambda peers: peers.ViTDiscriminator(first(COLOUR), 32, 2, 2, 8),
        copy_vit_discriminator,
        COLOUR,
        False,
    ),
}


def images(shape, seed):
    return np.random.default_rng(seed).uniform(-1, 1, (BATCH, *shape)).astype(np.float32)


def both(case, peers):
    """Our parameters, drawn at random, as 0 would hide a layer; and their net with the same."""
    inputs = (jnp.zeros((BATCH, LATENT)) if case.generates else jnp.zeros((BATCH, *case.shape)),)
    inputs += (jnp.asarray(LABELS),) if case.labelled else ()
    shapes = nn.unbox(jax.eval_shape(partial(case.ours.init, train=True), jax.random.key(0), *inputs))["params"]
    rng = np.random.default_rng(0)

    def draw(path, x):
        spread = 0.3 if x.ndim == 1 else 1.3 * np.prod(x.shape[1 if "encoder" in str(path) else 0 : -1]) ** -0.5
        return jnp.asarray(rng.normal("scale" in str(path[-1]), spread, x.shape), jnp.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    net = case.theirs(peers)
    assert sum(p.numel() for p in net.parameters()) == sum(p.size for p in jax.tree.leaves(params))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(torch.nan)  # what is not copied shows
    case.copied(net, params)
    return params, net


def close(given, wanted):
    """Equal up to 1e-4 of the largest."""
    largest = np.abs(wanted).max()
    assert largest > 1e-3
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4 * largest)


def on_mesh(function):
    """As in a training step: convolutions in groups are computed in another way without a mesh."""
    return Shardings(make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, BATCH), ()).jit(function)


@pytest.mark.parametrize("name", CASES)
def test_outputs(benchmarks, name):
    case = CASES[name]
    params, net = both(case, benchmarks("gan_peers"))
    inputs = np.random.default_rng(2).normal(size=(BATCH, LATENT)).astype(np.float32)
    if not case.generates:
        inputs = images(case.shape, 2)
    labels = (LABELS,) if case.labelled else ()

    @on_mesh
    def ours(inputs, *labels):
        return case.ours.apply({"params": params}, inputs, *labels, train=True, mutable=["batch_stats"])[0]

    given = ours(inputs, *labels)
    theirs = torch.from_numpy(inputs if case.generates else inputs.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        wanted = net(theirs, torch.from_numpy(LABELS)) if case.generates else net(theirs)
    if case.generates:
        wanted = wanted.permute(0, 2, 3, 1)
    for mine, other in zip(*((x if isinstance(x, tuple) else (x,)) for x in (given, wanted)), strict=True):
        assert np.std(other.numpy()) > 0.01
        close(mine, other.numpy())


PENALISED = {
    "ResNet": CASES["ResNet D, mean"]._replace(
        theirs=lambda peers: peers.ResNetDiscriminator((3, 16, 16), 8, "mean"), shape=(16, 16, 3)
    ),
    "R3GAN": CASES["R3GAN D"]._replace(theirs=lambda peers: peers.R3Discriminator((3, 8, 8), 32, 1), shape=(8, 8, 3)),
    "ViT": CASES["ViT D"]._replace(
        ours=vit_gan.Discriminator(32, 1, 2, 8),
        theirs=lambda peers: peers.ViTDiscriminator((3, 16, 16), 32, 1, 2, 8),
        shape=(16, 16, 3),
    ),
}


@pytest.mark.parametrize("name", PENALISED)
def test_penalties_and_their_gradients(benchmarks, name):
    """R1, and WGAN-GP's at the same points; then a gradient of gradients, that of their sum."""
    case, peers = PENALISED[name], benchmarks("gan_peers")
    params, net = both(case, peers)
    real, fake, key = images(case.shape, 3), images(case.shape, 4), jax.random.key(5)

    def ours(params):
        def critic(images):
            return case.ours.apply({"params": params}, images, train=True)

        both = [penalty(critic, key, real, fake) for penalty in (penalties.r1, penalties.gradient_penalty)]
        return sum(both), both

    (_, given), gradients = on_mesh(jax.value_and_grad(ours, has_aux=True))(params)
    real, fake = (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (real, fake))
    share = torch.from_numpy(np.array(jax.random.uniform(key, (BATCH, 1, 1, 1))))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        r1 = peers.squared_norms(net(real.requires_grad_()), real).mean() / 2
        wanted = [r1, peers.gradient_penalty(net, real.detach(), fake, share)]
        # A bias of the last layer has no part in a gradient with respect to images.
        found = torch.autograd.grad(sum(wanted), list(net.parameters()), allow_unused=True, materialize_grads=True)
    for mine, other in zip(given, wanted, strict=True):
        close(mine, other.detach().numpy())
    mine = copy.deepcopy(net)
    case.copied(mine, gradients)
    close(*(np.concatenate([x.detach().numpy().ravel() for x in side]) for side in (mine.parameters(), found)))


def test_losses(benchmarks):
    real, fake = (np.random.default_rng(seed).normal(0.2, 1.5, 16).astype(np.float32) for seed in (6, 7))
    for name, theirs in benchmarks("gan_peers").LOSSES.items():
        ours = OBJECTIVES[name]
        a, b = torch.from_numpy(real), torch.from_numpy(fake)
        np.testing.assert_allclose(ours.discriminator(real, fake), theirs[0](a, b), rtol=1e-5)
        np.testing.assert_allclose(ours.generator(fake, real), theirs[1](b, a), rtol=1e-5)


def test_both_sides_read_the_same_config(benchmarks):
    """As many parameters a player in each recipe."""
    recipes, peers = benchmarks("gan_recipes"), benchmarks("gan_peers")
    for name in recipes.RECIPES:
        config = recipes.recipe(name)
        task = make_task(config.to_dict(), described(config, tuple(map(str, range(peers.CLASSES))), peers.LENGTH))
        state = jax.eval_shape(task.init, jax.random.key(0))
        ours = [state.generator.variables["params"], state.discriminator.variables["params"]]
        counts = [sum(x.size for x in jax.tree.leaves(params)) for params in ours]
        assert counts == [sum(p.numel() for p in net.parameters()) for net in peers.players(config)], name
