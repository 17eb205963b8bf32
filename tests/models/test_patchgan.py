"""The receptive field by the support of a gradient, and the parameter count of the published network."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import validate
from gormley_vision.errors import UserError
from gormley_vision.models.patchgan import PatchDiscriminator


@pytest.mark.parametrize("field", [1, 16, 34, 70])
def test_a_logit_sees_exactly_its_receptive_field(field):
    """The gradient of one inner logit is zero outside a square of `field` pixels and nowhere zero on its border."""
    model = PatchDiscriminator(receptive_field=field, width=2)
    size = 2 * field + 40
    images = jax.random.normal(jax.random.key(0), (1, size, size, 1))
    variables = nn.unbox(jax.jit(partial(model.init, train=False))(jax.random.key(1), images))

    def logit(images):
        logits = model.apply(variables, images, train=False)  # running statistics: BatchNorm mixes no pixels
        return logits[0, logits.shape[1] // 2, logits.shape[2] // 2]

    seen = np.asarray(jax.jit(jax.grad(logit))(images))[0, :, :, 0] != 0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert rows[-1] - rows[0] + 1 == field
    assert columns[-1] - columns[0] + 1 == field


def test_parameter_count_of_the_70_pixel_network():
    """2,768,705 with six input channels: pix2pix's discriminator (junyanz/pytorch-CycleGAN-and-pix2pix)."""
    variables = jax.eval_shape(
        lambda key: PatchDiscriminator(70).init(key, jnp.zeros((1, 256, 256, 6)), train=True),
        jax.random.key(0),
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 2_768_705


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
