"""Image sizes that a DCGAN can generate. Loads no jax: it checks configs."""

from gormley_vision.errors import UserError

# Pixels for which a PatchGAN has a logit, by its receptive field.
PATCH_SIZES = {1: 1, 16: 6, 34: 12, 70: 24, 142: 48, 286: 96}


def halvings(image_size: int) -> tuple[int, int]:
    """Return (size of the smallest map, number of halvings) for an image of 16 to 128 pixels.

    Raises:
        UserError: the size cannot be halved down to 4 to 7 pixels. Names the nearest that can.
    """

    def descend(size: int) -> tuple[int, int]:
        count = 0
        while size % 2 == 0 and size > 7:
            size, count = size // 2, count + 1
        return size, count

    valid = [size for size in range(16, 129) if descend(size)[0] <= 7]
    if image_size not in valid:
        near = min(valid, key=lambda size: abs(size - image_size))
        raise UserError(
            f"data.image_size={image_size}: DCGAN halves the image down to 4 to 7 pixels, from 16 to 128; "
            f"the nearest size that works is --config.data.image_size={near}"
        )
    return descend(image_size)
