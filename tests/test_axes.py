"""Every parameter of every model names all its axes, in words of the table; and what the words say."""

import importlib
import inspect
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from gormley_vision import models
from gormley_vision.axes import NAMES, is_embedding, is_end, map_parameters, sides
from gormley_vision.fields import MESH_RULES
from gormley_vision.mesh_rules import are_rules, parse_rules
from gormley_vision.models import dense_gan, r3gan, resnet_gan, vit_gan
from gormley_vision.models.dcgan import Discriminator, Generator
from gormley_vision.models.patchgan import STRIDED_LAYERS, PatchDiscriminator
from gormley_vision.models.sentence_cnn import SentenceCNN
from gormley_vision.models.style_nets import Decoder, TransformerNet
from gormley_vision.models.super_resolution import EDSR, ESPCN, FSRCNN
from gormley_vision.models.transformer import Transformer
from gormley_vision.models.unet import UNet
from gormley_vision.models.vit import AttentionPooling, ViT

SMALL = {"width": 8, "depth": 2, "mlp": 12, "heads": 2, "patch_size": 4, "classes": 3}
IMAGES, LABELS, NOISE = jnp.zeros((2, 32, 32, 3)), jnp.zeros(2, jnp.int32), jnp.zeros((2, 8))
EVERYTHING = {"registers": 2, "representation": 6, "layer_scale": 0.1, "qk_norm": True, "rope": "naver_mixed"}
MODELS = {
    "dcgan's generator": (Generator((32, 32, 3), width=4), jnp.zeros((2, 8)), None),
    "dcgan's conditional generator": (Generator((32, 32, 3), width=4, classes=3), jnp.zeros((2, 8)), LABELS),
    "dcgan's discriminator": (Discriminator(width=4), IMAGES, None),
    "dcgan's conditional discriminator": (Discriminator(width=4, classes=3), IMAGES, LABELS),
    "dcgan's body as a classifier": (Discriminator(width=4, outputs=3), IMAGES, None),
    "dcgan's discriminator without norms": (Discriminator(width=4, norm="none"), IMAGES, None),
    "dcgan's auxiliary classifier": (Discriminator(width=4, classes=3, conditioning="classifier"), IMAGES, LABELS),
    "dense generator": (dense_gan.Generator((32, 32, 3), width=4), NOISE, None),
    "dense discriminator": (dense_gan.Discriminator(width=4, classes=3), IMAGES, LABELS),
    "resnet generator": (resnet_gan.Generator((32, 32, 3), 4, classes=3, conditioning="batch_norm"), NOISE, LABELS),
    "resnet discriminator": (resnet_gan.Discriminator(4, classes=3, conditioning="projection"), IMAGES, LABELS),
    "r3gan's generator": (r3gan.Generator((32, 32, 3), 16, classes=3), NOISE, LABELS),
    "r3gan's discriminator": (r3gan.Discriminator(16, classes=3), IMAGES, LABELS),
    "vit generator": (vit_gan.Generator((32, 32, 3), 16, 2, 2, classes=3), NOISE, LABELS),
    "vit discriminator": (vit_gan.Discriminator(16, 2, 2, classes=3), IMAGES, LABELS),
    "vit": (ViT(**SMALL), IMAGES),
    "vit with everything": (ViT(**SMALL, **EVERYTHING, pooling="map", scan=True, remat=True), IMAGES),
    "vit of rms norms": (ViT(**SMALL, norm="rms", parallel=True, qk_norm=True, pooling="gap", scan=True), IMAGES),
}
TEXT = {"vocabulary": 11, "context": 8, "width": 8, "depth": 2, "mlp": 12, "heads": 2, "causal": True}
TOKENS = jnp.zeros((2, 8), jnp.int32)
MODELS |= {
    "transformer": (Transformer(**TEXT), TOKENS),
    "transformer of Llama": (
        Transformer(**TEXT, rope="llama", position="none", norm="rms", activation="swiglu", tied=False, kv_heads=1),
        TOKENS,
    ),
    "transformer as a classifier": (Transformer(**TEXT, classes=3), TOKENS),
    "sentence cnn": (SentenceCNN(11, 8, 3, width=8, maps=4), TOKENS),
}
MODELS |= {
    f"patchgan of {field} pixels": (PatchDiscriminator(field, 4), jnp.zeros((2, 96, 96, 3))) for field in STRIDED_LAYERS
}
MODELS |= {
    "U-Net": (UNet(levels=5, width=4), IMAGES),
    "U-Net with BatchNorm": (UNet(levels=5, width=4, norm="batch"), IMAGES),
    "espcn": (ESPCN(), IMAGES),
    "fsrcnn": (FSRCNN(), IMAGES),
    "style transfer": (TransformerNet(4), IMAGES),
    "AdaIN's decoder": (Decoder("relu2_1"), jnp.zeros((2, 8, 8, 128))),
    "edsr": (EDSR(features=4, blocks=2, bicubic_skip=True), IMAGES),
}


def parameters(module, *inputs):
    mode = {"train": True} if "train" in inspect.signature(module.__call__).parameters else {}
    params = jax.eval_shape(lambda key: module.init(key, *inputs, **mode), jax.random.key(0))["params"]
    found = []
    map_parameters(found.append, params)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_names_each_of_its_axes(name):
    found = parameters(*MODELS[name])
    assert len(found) > 2
    for path, shape, names in found:
        assert names is not None, f"{path} has an axis without a name, or one that NAMES lack"
        assert len(names) == len(shape), path
        is_kernel = path.endswith(("kernel", "patch_embedding", "token_embedding")) or path == "head"
        is_kernel |= names[0] == "classes" and len(names) > 1  # a vector for each class
        assert len(sides(names)) == (2 if is_kernel else 1), f"{path}: {names}"
        assert ("layers" in names) == ("encoder/" in path), path


def test_every_model_is_among_them():
    """A module that is added to `models` is added to `MODELS`; Inception is not trained here: nothing reads names."""
    names = [room.name for room in pkgutil.iter_modules(models.__path__) if room.name != "inception"]
    rooms = [importlib.import_module(f"gormley_vision.models.{name}") for name in names]
    there = {
        thing
        for room in rooms
        for thing in vars(room).values()
        if isinstance(thing, type) and issubclass(thing, nn.Module) and thing.__module__ == room.__name__
    }
    assert there - {AttentionPooling, r3gan.Block} == {type(module) for module, *_ in MODELS.values()}


def test_every_name_is_somebodys():
    used = {name for model in MODELS.values() for parameter in parameters(*model) for name in parameter.names}
    assert NAMES.keys() == used


def test_sides_by_hand():
    assert sides(("layers", "embed", "heads", "qkv", "head_dim")) == [(1,), (2, 4)]
    assert sides(("heads", "head_dim", "embed")) == [(0, 1), (2,)]
    assert sides(("conv_height", "conv_width", "conv_in", "conv_out")) == [(0, 1, 2), (3,)]
    assert sides(("conv_height", "conv_width", "conv_out", "conv_in")) == [(0, 1, 2), (3,)]
    assert sides(("embed", "embed")) == [(0,), (1,)]
    assert sides(("one", "tokens", "embed")) == [(2,)]
    assert sides(("layers", "heads", "qkv", "head_dim")) == [(1, 3)]
    assert sides(("in", "out")) == [(0,), (1,)]
    assert sides(()) == []


def test_ends_and_embeddings_by_hand():
    assert is_end(("vocab", "embed"))
    assert is_end(("embed", "classes"))
    assert is_end(("conv_height", "conv_width", "channels", "conv_out"))
    assert not is_end(("conv_height", "conv_width", "conv_in", "conv_out"))
    assert is_embedding(("vocab", "embed"))
    assert is_embedding(("patch_out",))
    assert is_embedding(("one", "tokens", "embed"))
    assert not is_embedding(("embed", "vocab"))
    assert not is_embedding(("vocab",))
    assert not is_embedding(("embed",))


def test_the_default_rules_are_rules_of_known_names():
    assert {rule.name for rule in parse_rules(MESH_RULES)} <= NAMES.keys()
    assert are_rules("")
    assert not are_rules("attention/qkv: tensor - -; mlp/in: tensor")
