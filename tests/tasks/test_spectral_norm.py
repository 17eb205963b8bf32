"""Spectral normalisation: by hand, against exact singular values, and what it moves."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.config import default_config
from gormley_vision.experiment import described, make_task
from gormley_vision.tasks.gan import spectral_norm
from gormley_vision.tasks.gan.spectral_norm import Matrix
from gormley_vision.training.task import first_state

KEY = jax.random.key(3)
TWO = {("a", "kernel"): Matrix((), (0,), (1,))}


def test_a_diagonal_matrix_by_hand():
    """diag(3, 1): from (1, 1) / sqrt 2 one iteration gives (9, 1) / sqrt 82, and the value sqrt(731 / 82) of 3."""
    params = {"a": {"kernel": jnp.diag(jnp.array([3.0, 1.0])), "bias": jnp.ones(2)}}
    vectors = {"a": {"kernel": jnp.ones((1, 2)) / 2**0.5}}
    after = spectral_norm.iterated(params, TWO, vectors)
    np.testing.assert_allclose(after["a"]["kernel"], np.array([[9, 1]]) / 82**0.5, rtol=1e-6)
    value = spectral_norm.singular_values(params, TWO, after)["a/kernel"]
    np.testing.assert_allclose(value, [(730 / 82) ** 0.5], rtol=1e-6)  # |diag(3, 1) (9, 1)| / sqrt 82
    divided = spectral_norm.normalized(params, TWO, after)["a"]
    np.testing.assert_allclose(divided["kernel"], np.diag([3, 1]) / (730 / 82) ** 0.5, rtol=1e-6)
    np.testing.assert_array_equal(divided["bias"], 1)


def test_the_gradient_flows_through_the_value():
    """At the exact vectors, d sigma / dW = u v^T, so that d (c . W / sigma) = c / sigma - (c . W) u v^T / sigma^2."""
    draw = np.random.default_rng(0)
    weights, c = draw.normal(size=(4, 3)), draw.normal(size=(4, 3))
    u, s, v = np.linalg.svd(weights)
    vectors = {"a": {"kernel": jnp.asarray(v[:1])}}

    def value(kernel):
        return jnp.sum(c * spectral_norm.normalized({"a": {"kernel": kernel}}, TWO, vectors)["a"]["kernel"])

    expected = c / s[0] - np.sum(c * weights) * np.outer(u[:, 0], v[0]) / s[0] ** 2
    np.testing.assert_allclose(jax.grad(value)(jnp.asarray(weights)), expected, rtol=1e-4, atol=1e-6)


def test_a_matrix_of_zeros_is_left_as_it_is_and_remembers_its_vector():
    """R3GAN's blocks end in one: no division by 0, in the value or its gradient; it is normalised once it moves."""
    params, vectors = {"a": {"kernel": jnp.zeros((3, 2))}}, {"a": {"kernel": jnp.array([[0.6, 0.8]])}}
    after = spectral_norm.iterated(params, TWO, vectors)
    np.testing.assert_array_equal(after["a"]["kernel"], vectors["a"]["kernel"])

    def value(kernel):
        return jnp.sum(spectral_norm.normalized({"a": {"kernel": kernel}}, TWO, vectors)["a"]["kernel"])

    found, gradient = jax.value_and_grad(value)(params["a"]["kernel"])
    assert float(found) == 0
    np.testing.assert_array_equal(gradient, 1)
    moved = {"a": {"kernel": jnp.array([[0.0, 0.0], [0.0, 4.0], [0.0, 0.0]])}}
    divided = spectral_norm.normalized(moved, TWO, spectral_norm.iterated(moved, TWO, vectors))
    np.testing.assert_allclose(divided["a"]["kernel"].max(), 1, rtol=1e-6)


@pytest.fixture(scope="module")
def trained():
    """A GAN with a normalised discriminator, its first state, and that after 150 steps."""
    config = default_config("gan")
    config.update_from_flattened_dict(
        {
            "data.image_size": 16,
            "data.batch_size": 8,
            "generator.width": 4,
            "generator.latent_size": 3,
            "discriminator.width": 4,
            "discriminator.norm": "none",
            "discriminator.spectral_norm": True,
            "gan.objective": "hinge",
        }
    )
    gan = make_task(config.to_dict(), described(config, (), 100))
    state = start = jax.jit(partial(first_state, gan))(KEY)
    step = jax.jit(gan.train_step)
    batch = {"image": jax.random.randint(KEY, (1, 8, 16, 16, 1), 0, 256).astype(jnp.uint8)}
    for _ in range(150):
        state, _, _ = step(state, batch, KEY)
    return gan, start, state, batch


def test_values_are_within_a_percent_after_a_warm_up(trained):
    gan, _, state, _ = trained
    variables = state.discriminator.variables
    found = spectral_norm.singular_values(variables["params"], gan.matrices, variables["spectral"])
    assert len(found) == 3  # two convolutions and the last layer
    for path, value in found.items():
        kernel = variables["params"]
        for name in path.split("/"):
            kernel = kernel[name]
        exact = np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        np.testing.assert_allclose(value, [exact], rtol=0.01)


def test_the_vectors_move_once_in_an_update_of_the_discriminator_and_in_no_other(trained):
    gan, _, state, batch = trained
    before = state.discriminator.variables
    for phase in gan.phases:
        after, _, _ = jax.jit(dataclasses.replace(gan, phases=(phase,)).train_step)(state, batch, KEY)
        expected = before["spectral"]
        if phase.player == "discriminator":
            expected = spectral_norm.iterated(before["params"], gan.matrices, expected)
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
            after.discriminator.variables["spectral"],
            expected,
        )


def test_a_scale_of_a_kernel_is_of_no_effect(trained):
    """What the discriminator computes does not depend on the length of its matrices."""
    gan, _, state, batch = trained

    @jax.jit
    def loss(factor):
        variables = state.discriminator.variables
        params = jax.tree.map(lambda x: factor * x if x.ndim > 1 else x, variables["params"])
        network = type(state.discriminator)({**variables, "params": params}, state.discriminator.opt_state, 0)
        return gan.train_step(state.replace(discriminator=network), batch, KEY)[1]["discriminator/real"]

    assert float(loss(jnp.float32(5))) == pytest.approx(float(loss(jnp.float32(1))), rel=1e-4)
