"""Losses of style against hand-worked values, closed forms and laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.losses.style import (
    EPSILON,
    GRAMS,
    adaptive_instance_norm,
    channel_statistics,
    content_loss,
    gram_loss,
    gram_matrix,
    statistics_loss,
    total_variation,
)

DRAW = np.random.default_rng(0)
MAPS, OTHER = DRAW.normal(size=(2, 2, 4, 3, 5)).astype(np.float32)


def test_a_gram_matrix_does_not_see_where_things_are():
    rows = DRAW.permutation(MAPS.reshape(2, 12, 5), axis=1)
    moved = rows.reshape(2, 6, 2, 5)  # another shape, too
    np.testing.assert_allclose(gram_matrix(jnp.asarray(MAPS)), gram_matrix(jnp.asarray(moved)), atol=1e-6)


def test_the_gram_matrix_of_a_constant_map_is_the_outer_product_of_its_channels():
    values = np.array([1.0, -2, 3], np.float32)
    gram = gram_matrix(jnp.broadcast_to(jnp.asarray(values), (1, 7, 2, 3)))
    np.testing.assert_allclose(gram[0], np.outer(values, values), rtol=1e-6)


def test_the_scales_of_gram_matrices_are_those_of_their_papers():
    """Each against its own formula, on sums over positions as they are written there."""
    sums = [np.einsum("bhwc,bhwd->bcd", x, x, dtype=np.float64) for x in (MAPS, OTHER)]
    count, channels = 12, 5
    squares = np.sum((sums[0] - sums[1]) ** 2, axis=(1, 2)).mean()
    expected = {
        "per_position": squares / count**2 / channels**2,
        "per_entry": squares / (channels * count) ** 2 / channels**2,
        "gatys": squares / (4 * channels**2 * count**2),
    }
    assert expected.keys() == set(GRAMS)
    grams = [gram_matrix(jnp.asarray(x)) for x in (MAPS, OTHER)]
    for scale, value in expected.items():
        np.testing.assert_allclose(gram_loss(*grams, scale), value, rtol=1e-5)


def test_the_total_variation_of_a_chessboard():
    """Every pair of neighbours differs by 2: 4 down, and 4 to the right. Of columns alone, 4."""
    board = np.indices((6, 4)).sum(0) % 2 * 2.0 - 1
    assert float(total_variation(jnp.asarray(board, jnp.float32)[None, :, :, None])) == 8
    columns = np.broadcast_to(np.array([1.0, -1, 1, -1]), (6, 4))
    assert float(total_variation(jnp.asarray(columns, jnp.float32)[None, :, :, None])) == 4


def test_after_adain_channels_have_the_styles_mean_and_deviation():
    content, style = 3 * MAPS + 7, 0.5 * OTHER[:, :3] - 2  # of another size
    result = np.asarray(adaptive_instance_norm(jnp.asarray(content), jnp.asarray(style)))
    np.testing.assert_allclose(result.mean((1, 2)), style.mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(result.std((1, 2), ddof=1), style.std((1, 2), ddof=1), rtol=1e-4)
    # and are the content's, moved and stretched
    for channel in range(5):
        assert np.corrcoef(result[0, ..., channel].ravel(), content[0, ..., channel].ravel())[0, 1] > 1 - 1e-6


def test_adain_of_a_picture_with_itself_changes_nothing():
    np.testing.assert_allclose(adaptive_instance_norm(jnp.asarray(MAPS), jnp.asarray(MAPS)), MAPS, atol=1e-5)


def test_statistics_of_a_channel_by_hand():
    """Of 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 over 3. A constant channel has the deviation that EPSILON gives."""
    maps = np.stack([[1.0, 2, 3, 6], [5, 5, 5, 5]], axis=-1).reshape(1, 2, 2, 2)
    mean, deviation = channel_statistics(jnp.asarray(maps, jnp.float32))
    np.testing.assert_allclose(mean.ravel(), [3, 5])
    np.testing.assert_allclose(deviation.ravel(), np.sqrt([14 / 3 + EPSILON, EPSILON]), rtol=1e-6)
    loss = statistics_loss(jnp.asarray(maps, jnp.float32), jnp.asarray(2 * maps, jnp.float32))
    twice = (np.sqrt(4 * 14 / 3 + EPSILON) - np.sqrt(14 / 3 + EPSILON)) ** 2
    np.testing.assert_allclose(loss, (9 + 25) / 2 + twice / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="one position"):
        channel_statistics(jnp.zeros((1, 1, 1, 4)))


@pytest.mark.parametrize("scale", GRAMS)
def test_what_is_equal_has_no_loss_and_no_gradient(scale):
    maps = jnp.asarray(MAPS)
    target = gram_matrix(maps)
    losses = (
        lambda x: gram_loss(gram_matrix(x), target, scale),
        lambda x: content_loss(x, maps),
        lambda x: statistics_loss(x, maps),
    )
    for loss in losses:
        value, gradient = jax.value_and_grad(loss)(maps)
        np.testing.assert_allclose(value, 0, atol=1e-12)
        np.testing.assert_allclose(gradient, 0, atol=1e-7)
        assert float(loss(1.1 * maps)) > 1e-4  # at another place there is one


def test_bfloat16_is_summed_in_float32_and_unequal_shapes_are_refused():
    ones = jnp.ones((1, 64, 64, 1), jnp.bfloat16)  # a sum in bfloat16 would stop at 256
    assert gram_matrix(ones).dtype == jnp.float32
    assert float(gram_matrix(ones)[0, 0, 0]) == 1
    with pytest.raises(ValueError, match="differ"):
        content_loss(jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 2, 1, 3)))
    with pytest.raises(ValueError, match="differ"):
        gram_loss(jnp.zeros((2, 3, 3)), jnp.zeros((1, 3, 3)), "gatys")
