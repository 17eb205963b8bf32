"""Networks that paint: the published numbers of parameters, sizes, and what normalisation and reflection imply."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.models.style_nets import Decoder, TransformerNet


def count(model, *shape):
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def test_the_published_numbers_of_parameters():
    assert count(TransformerNet(), 1, 32, 32, 3) == 1_679_235
    assert count(Decoder(), 1, 4, 4, 512) == 3_505_219


@pytest.mark.parametrize("shape", [(2, 32, 24, 3), (1, 17, 30, 3), (1, 5, 5, 3)])
def test_a_painted_picture_has_the_size_of_the_picture(shape):
    model = TransformerNet(width=2)
    painted = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], jnp.zeros(shape))
    assert painted.shape == shape


def with_random_params(model, x):
    params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), x)["params"])
    draw = np.random.default_rng(0)
    return {"params": jax.tree.map(lambda p: jnp.asarray(0.3 * draw.normal(size=p.shape), p.dtype), params)}


def test_the_transformer_net_sees_neither_the_contrast_nor_the_brightness_of_a_picture():
    """InstanceNorm after the first convolution removes both; with zeros outside, brightness would leave a frame."""
    x = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (1, 16, 16, 3)), jnp.float32)
    model = TransformerNet(width=2)
    apply = jax.jit(lambda v, x: model.apply(v, x))
    variables = with_random_params(model, x)
    painted = apply(variables, x)
    assert painted.std() > 0.1
    np.testing.assert_allclose(apply(variables, 0.5 * x + 0.25), painted, atol=2e-3)
    assert abs(np.asarray(painted)).max() <= 1


def test_a_decoder_keeps_constant_features_constant_and_enlarges_by_its_encoders_pools():
    model = Decoder("relu3_1")
    features = jnp.broadcast_to(jnp.linspace(-1, 1, 256)[None, None, None], (1, 3, 2, 256))
    painted = jax.jit(lambda v, x: model.apply(v, x))(with_random_params(model, features), features)
    assert painted.shape == (1, 12, 8, 3)
    np.testing.assert_allclose(painted, np.broadcast_to(painted[:, :1, :1], painted.shape), rtol=1e-4, atol=1e-3)
    assert np.ptp(painted[0, 0, 0]) > 1e-3
