"""Tiles of a convolutional function are the function of the whole, if they overlap as far as it sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gormley_vision.errors import UserError
from gormley_vision.layers.convolution import convolve
from gormley_vision.tiling import tiled

RNG = np.random.default_rng(0)
KERNELS = [jnp.asarray(RNG.normal(size=(3, 3, i, o)) / 3, jnp.float32) for i, o in ((3, 4), (4, 4), (4, 2))]
RADIUS = 3  # of what a pixel of the result sees
IMAGE = RNG.uniform(-1, 1, (37, 50, 3)).astype(np.float32)


@jax.jit
def network(x):
    """Three 3x3 convolutions with biases, zeros outside."""
    for kernel in KERNELS:
        x = jnp.tanh(convolve(x, kernel, stride=1, padding=(1, 1)) + 0.3)
    return x


WHOLE = np.asarray(network(IMAGE[None]))[0]


def test_tiles_are_the_whole_to_its_borders_and_of_one_shape():
    seen = set()

    def watched(tiles):
        seen.add(tiles.shape)
        return network(tiles)

    for tile, overlap, batch in ((16, RADIUS, 1), (16, RADIUS, 5), (37, RADIUS + 2, 1)):
        seen.clear()
        found = tiled(watched, IMAGE, tile=tile, overlap=overlap, batch=batch)
        np.testing.assert_allclose(found, WHOLE, atol=1e-5)
        assert seen == {(batch, tile, tile, 3)}


def test_an_overlap_below_the_receptive_field_shows():
    assert np.abs(tiled(network, IMAGE, tile=16, overlap=RADIUS - 1) - WHOLE).max() > 1e-3


def test_each_pixel_comes_from_one_tile():
    """Positions as pixels: a function that leaves tiles alone leaves any picture alone, of any type."""
    for height, width in ((1, 1), (8, 8), (9, 8), (15, 31), (16, 17), (64, 3)):
        image = np.arange(height * width * 2, dtype=np.int32).reshape(height, width, 2)
        for overlap, batch in ((0, 1), (3, 4)):
            found = tiled(lambda tiles: tiles, image, tile=8, overlap=overlap, batch=batch)
            np.testing.assert_array_equal(found, image)
            assert found.dtype == image.dtype


def test_super_resolution():
    """Repeats pixels 2x2, then convolves: a pixel of the result sees one of the image beside its own."""

    def doubled(tiles):
        large = jnp.repeat(jnp.repeat(tiles, 2, axis=1), 2, axis=2)
        return convolve(large, KERNELS[0], stride=1, padding=(1, 1))

    found = tiled(doubled, IMAGE, tile=10, overlap=1, scale=2)
    assert found.shape == (74, 100, 4)
    np.testing.assert_allclose(found, np.asarray(doubled(IMAGE[None]))[0], atol=1e-5)
    assert np.abs(tiled(doubled, IMAGE, tile=10, overlap=0, scale=2) - found).max() > 1e-3


def test_a_picture_smaller_than_a_tile():
    """It is continued below and to the right, so that only pixels there see what the whole does not have."""
    small = IMAGE[:12, :30]
    whole = np.asarray(network(small[None]))[0]
    found = tiled(network, small, tile=16, overlap=RADIUS)
    assert found.shape == whole.shape
    np.testing.assert_allclose(found[:-RADIUS], whole[:-RADIUS], atol=1e-5)
    assert np.abs(found[-1] - whole[-1]).max() > 1e-3


def test_what_makes_no_sense_is_refused():
    for tile, overlap in ((8, 4), (8, -1), (1, 1)):
        with pytest.raises(UserError, match=f"choose 0 to {(tile - 1) // 2}"):
            tiled(network, IMAGE, tile=tile, overlap=overlap)
    with pytest.raises(ValueError, match=r"at scale 2 became \(1, 16, 16, 2\)"):
        tiled(network, IMAGE, tile=16, overlap=3, scale=2)
