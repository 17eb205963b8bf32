"""Mirrors, shifts and crops training images [B, H, W, C]. Pure functions; all random draws come from the key.

For examples with label maps, boxes or points see `spatial`, which moves these by the same random draws.
"""

import jax
import jax.numpy as jnp


def flip_half(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirror each of the images [B, H, W, C] left to right with probability 1/2."""
    mirrored = draw_mirrored(key, images.shape[0])
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def draw_mirrored(key: jax.Array, count: int) -> jax.Array:
    """Draw which of `count` images `flip_half` mirrors: bool [count]."""
    return jax.random.bernoulli(key, shape=(count,))


def shift(key: jax.Array, images: jax.Array, pixels: int, fill: int = 0) -> jax.Array:
    """Move each of the images [B, H, W, C] by -pixels ... pixels along both axes, padding with `fill`; any dtype.

    The padding and random crop of He et al. 2015 (arXiv:1512.03385, section 4.2, with 4 pixels), each of the
    (2 * pixels + 1)^2 positions equally likely. The colour of zero depends on the range: for MNIST's uint8 it is the
    background, in [-1, 1] it is grey.
    """
    if pixels < 0:
        raise ValueError(f"a shift by {pixels} pixels")
    if pixels == 0:
        return images
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), constant_values=fill)
    corners = draw_corners(key, images.shape[0], pixels)
    crop = jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:]))
    return crop(padded, corners)


def draw_corners(key: jax.Array, count: int, pixels: int) -> jax.Array:
    """Draw where the shifted images start in the padded ones, (row, column): int32 [count, 2] in 0 ... 2 * pixels."""
    return jax.random.randint(key, (count, 2), 0, 2 * pixels + 1)


def random_resized_crop(key: jax.Array, images: jax.Array, min_area: float) -> jax.Array:
    """Crop a rectangle of each image [B, H, W, C] and resize it to full size (Szegedy et al. 2014, arXiv:1409.4842).

    Its area is uniform in [`min_area`, 1] of the image's, its aspect ratio log-uniform in [3/4, 4/3] (section 6), cut
    off if it is longer than the image; bilinear, antialiased, integers rounded. Usually the decoded file is cropped
    before it is resized, which keeps more detail; this function has static sizes and runs on the model's device.
    """
    batch, height, width, channels = images.shape

    def crop(key: jax.Array, image: jax.Array) -> jax.Array:
        sides, corner = _draw_rectangle(key, min_area)
        size = jnp.array([height, width], jnp.float32)
        shape = (height, width, channels)
        return jax.image.scale_and_translate(
            image.astype(jnp.float32), shape, (0, 1), 1 / sides, -corner / sides * size, "bilinear"
        )

    cropped = jax.vmap(crop)(jax.random.split(key, batch), images)
    if jnp.issubdtype(images.dtype, jnp.integer):
        cropped = jnp.clip(jnp.round(cropped), 0, 255)
    return cropped.astype(images.dtype)


def draw_rectangles(key: jax.Array, count: int, min_area: float) -> tuple[jax.Array, jax.Array]:
    """Draw sides and corners of `count` images' rectangles, (height, width) as fractions: float32 [count, 2]."""
    return jax.vmap(lambda key: _draw_rectangle(key, min_area))(jax.random.split(key, count))


def _draw_rectangle(key: jax.Array, min_area: float) -> tuple[jax.Array, jax.Array]:
    area_key, ratio_key, corner_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, (), minval=min_area, maxval=1.0)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (), minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))
    sides = jnp.minimum(jnp.sqrt(area * jnp.stack([1 / ratio, ratio])), 1.0)
    return sides, jax.random.uniform(corner_key, (2,)) * (1 - sides)


def crop_at_random(key: jax.Array, images: jax.Array, side: int) -> jax.Array:
    """Cut a square of `side` pixels out of each image [B, H, W, C], every place equally likely: [B, side, side, C]."""
    batch, height, width, channels = images.shape
    if (height, width) == (side, side):
        return images
    last = jnp.array([height - side, width - side])
    corners = jax.random.randint(key, (batch, 2), 0, last[None] + 1)
    shape = (side, side, channels)
    return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape))(
        images, corners
    )


def turn_at_random(key: jax.Array, images: jax.Array) -> jax.Array:
    """Turn each square image [B, H, H, C] by 0, 90, 180 or 270 degrees."""
    turns = jax.random.randint(key, (len(images), 1, 1, 1), 0, 4)
    images = jnp.where(turns >= 2, images[:, ::-1, ::-1], images)
    return jnp.where(turns % 2 == 1, jnp.rot90(images, axes=(1, 2)), images)
