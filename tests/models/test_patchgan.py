"""The receptive field by the support of a gradient, and the parameter counts of the published networks."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import validate
from gormley_vision.errors import UserError
from gormley_vision.models.patchgan import PatchDiscriminator


@pytest.mark.parametrize("field", [1, 16, 34, 70, pytest.param(142, marks=pytest.mark.slow), 286])
def test_a_logit_sees_exactly_its_receptive_field(field):
    """The gradient of one inner logit is zero outside a square of `field` pixels and nowhere zero on its border."""
    model = PatchDiscriminator(receptive_field=field, width=1)
    size = field + 64
    images = jax.random.normal(jax.random.key(0), (1, size, size, 1))
    variables = nn.unbox(jax.jit(partial(model.init, train=False))(jax.random.key(1), images))

    def logit(images):
        logits = model.apply(variables, images, train=False)  # running statistics: BatchNorm mixes no pixels
        return logits[0, logits.shape[1] // 2, logits.shape[2] // 2]

    seen = np.asarray(jax.jit(jax.grad(logit))(images))[0, :, :, 0] != 0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert rows[-1] - rows[0] + 1 == field
    assert columns[-1] - columns[0] + 1 == field


@pytest.mark.parametrize(
    ("field", "norm", "channels", "expected"),
    [
        # junyanz/pytorch-CycleGAN-and-pix2pix: of pix2pix, with the condition beside the image; 1 + 2 for colorization.
        (70, "batch", 6, 2_768_705),
        (70, "instance", 6, 2_767_809),
        (70, "batch", 3, 2_765_633),
        (16, "batch", 6, 139_585),
        (34, "batch", 6, 666_433),
        (142, "batch", 6, 6_964_033),
        (286, "batch", 6, 11_159_361),
        (70, "instance", 3, 2_764_737),  # CycleGAN's
        # By hand: biases of the first layer, scales and biases of BatchNorm, and no bias at the end beside it.
        (1, "batch", 3, 4 * 64 + 64 * 128 + 2 * 128 + 128),
        (1, "instance", 3, 4 * 64 + 65 * 128 + 129),
        (1, "none", 3, 4 * 64 + 65 * 128 + 129),
    ],
)
def test_published_counts(field, norm, channels, expected):
    model = PatchDiscriminator(field, norm=norm)
    variables = jax.eval_shape(partial(model.init, train=True), jax.random.key(0), jnp.zeros((1, 256, 256, channels)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == expected
    assert ("batch_stats" in variables) == (norm == "batch")


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_norms_take_away_a_layers_scale_and_batch_norm_mixes_images(norm):
    model = PatchDiscriminator(16, width=2, norm=norm)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    variables = nn.unbox(jax.jit(partial(model.init, train=True))(jax.random.key(1), images))

    @jax.jit
    def logits(images, gain):  # of a kernel before a norm; far above the 1e-5 beside the variance
        params = dict(variables["params"])
        params["Convolution_1"] = jax.tree.map(lambda x: x * gain, params["Convolution_1"])
        return model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])[0]

    found = logits(images, 1e3)
    assert np.allclose(found, logits(images, 1e4), rtol=1e-3, atol=1e-4) == (norm != "none")
    mixing = jnp.abs(found[:1] / logits(images.at[1].multiply(3), 1e3)[:1] - 1).max()
    assert mixing > 1e-2 if norm == "batch" else mixing < 1e-5


def test_one_logit_a_patch():
    model = PatchDiscriminator(70, width=1)
    logits = jax.eval_shape(
        lambda key: model.init_with_output(key, jnp.zeros((2, 256, 256, 3)), train=True)[0], jax.random.key(0)
    )
    assert logits.shape == (2, 30, 30)  # the 30x30 map of pix2pix at 256 pixels


def test_contradictory_configs_are_refused_with_the_flag_to_type():
    from gormley_vision.config import default_config

    config = default_config("gan").to_dict()
    config["discriminator"]["architecture"] = "patchgan"
    with pytest.raises(UserError, match=r"--config\.discriminator\.receptive_field=16"):
        validate(config)
    config["discriminator"].update(architecture="dcgan", receptive_field=34)
    with pytest.raises(UserError, match="architecture=patchgan"):
        validate(config)
