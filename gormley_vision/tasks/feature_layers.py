"""The layers of the network that feature losses compare, by their names in the literature. Loads no jax."""

from gormley_vision.errors import UserError

LAYERS = tuple(f"relu{b}_{i}" for b, n in enumerate((2, 2, 4, 4, 4), 1) for i in range(1, n + 1))  # models.vgg.LAYERS


def layers_of(text: str) -> tuple[str, ...]:
    """Return the layers in 'relu1_1,relu2_1'."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def check_layers(key: str, text: str, side: int) -> None:
    """Refuse what does not name layers that images of `side` pixels have.

    Raises:
        UserError: the config's `key` names none, or unknown ones, or the images are too small for them.
    """
    layers = layers_of(text)
    if not layers or any(name not in LAYERS for name in layers):
        raise UserError(f"{key}={text!r}: write layers as in 'relu1_1,relu2_1', of {', '.join(LAYERS)}")
    if small := [name for name in layers if side < 2 ** (int(name[4]) - 1)]:
        raise UserError(
            f"{key}={text!r}: images of {side} pixels have no {small[0]}: name layers up to block {side.bit_length()}, "
            "or take larger images"
        )
