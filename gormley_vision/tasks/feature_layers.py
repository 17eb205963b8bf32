"""The layers of the networks that feature losses compare, by name. Loads no jax."""

from gormley_vision.errors import UserError

_VGG = {f"relu{b}_{i}": b - 1 for b, n in enumerate((2, 2, 4, 4, 4), 1) for i in range(1, n + 1)}
_LITE_EXPANSIONS = (1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5)
_LITE = {"stem": 1} | {f"expand{number}": halvings for number, halvings in enumerate(_LITE_EXPANSIONS, 2)}
# How often a network has halved its input at a layer, in the order of models.vgg and models.efficientnet_lite.
HALVINGS = {"random": _VGG, "vgg19": _VGG, "lite0": _LITE}


def layers_of(text: str) -> tuple[str, ...]:
    """Return the layers in 'relu1_1,relu2_1'."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def check_layers(key: str, text: str, features: str, side: int) -> None:
    """Refuse what does not name layers of the network `features` ('lite0:FILE') that images of `side` pixels have.

    Raises:
        UserError: the config's `key` names none, or unknown ones, or the images are too small for them.
    """
    layers, halvings = layers_of(text), HALVINGS.get(features.partition(":")[0], _VGG)
    if not layers or any(name not in halvings for name in layers):
        example = ",".join(tuple(halvings)[:5:2])
        raise UserError(f"{key}={text!r}: write layers as in '{example}', of {', '.join(halvings)}")
    if small := [name for name in layers if side < 2 ** halvings[name]]:
        last = [name for name, count in halvings.items() if side >= 2**count][-1:]
        raise UserError(
            f"{key}={text!r}: images of {side} pixels have no {small[0]}: "
            + (f"name layers up to {last[0]}, or take larger images" if last else "take larger images")
        )
