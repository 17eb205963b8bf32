"""Which transforms of `differentiable` to apply, and how often: policies. Loads no jax, so that a config can check one.

A policy is names of transforms or groups with commas between them, and after a name * and a factor of the probability
if it is not 1: 'color,cutout', 'blit,geometry,ada_color*0.5'. `differentiable` says what each transform does.
"""

import difflib
from collections.abc import Iterator

# In the order in which `differentiable.augment` applies them: warps, colours, and what is cut out stays cut out. Its
# index here is folded into a transform's key: a name put in between changes the draws of those after it.
NAMES = (
    "brightness_shift",
    "saturation_scale",
    "contrast_scale",
    "translation",
    "flip",
    "rotate90",
    "integer_translation",
    "scale",
    "rotation",
    "anisotropic_scale",
    "fractional_translation",
    "brightness",
    "contrast",
    "luma_flip",
    "hue",
    "saturation",
    "cutout",
)

# A group's parts are written as in a policy: names, other groups, factors.
GROUPS: dict[str, tuple[str, ...]] = {
    # DiffAugment (Zhao et al. 2020, arXiv:2006.10738)
    "color": ("brightness_shift", "saturation_scale", "contrast_scale"),
    "diffaugment": ("color", "translation", "cutout"),
    # ADA (Karras et al. 2020, arXiv:2006.06676, section 3.1 and appendix B)
    "blit": ("flip", "rotate90", "integer_translation"),
    "geometry": ("scale", "rotation", "anisotropic_scale", "fractional_translation"),
    "ada_color": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
    "bgc": ("blit", "geometry", "ada_color"),
    # R3GAN (Huang et al. 2025, arXiv:2501.05441), train.py; its cutout is ADA's, see `differentiable`
    "r3gan": ("blit", "geometry", "ada_color*0.5", "cutout"),
}


def parsed(policy: str) -> tuple[tuple[str, float], ...]:
    """Return a policy's transforms in the order of `NAMES`, each once, with its factor of the probability in (0, 1].

    A group's factor multiplies those of its parts. The empty policy has no transforms.

    Raises:
        ValueError: a part is not known or empty, a factor is not a number in (0, 1], or a transform has two factors.
    """
    factors: dict[str, float] = {}
    for part in policy.split(",") if policy.strip() else ():
        for name, factor in _expanded(part.strip(), policy):
            if factors.setdefault(name, factor) != factor:
                raise ValueError(
                    f"{name!r} has two factors in {policy!r}, {factors[name]:g} and {factor:g}: name it once"
                )
    return tuple((name, factors[name]) for name in NAMES if name in factors)


def _expanded(part: str, policy: str) -> Iterator[tuple[str, float]]:
    name, star, number = (text.strip() for text in part.partition("*"))
    factor = _factor(number, part, policy) if star else 1.0
    if name in NAMES:
        yield name, factor
    elif name in GROUPS:
        for inner in GROUPS[name]:
            for inner_name, inner_factor in _expanded(inner, policy):
                yield inner_name, factor * inner_factor
    else:
        choices = (*GROUPS, *NAMES)
        near = difflib.get_close_matches(name, choices, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"choose among {', '.join(choices)}"
        raise ValueError(f"{name!r} in the policy {policy!r} is no transform and no group of them: {hint}")


def _factor(number: str, part: str, policy: str) -> float:
    try:
        factor = float(number)
    except ValueError:
        factor = float("nan")
    if not 0 < factor <= 1:
        raise ValueError(f"{part!r} in the policy {policy!r}: after * comes a factor above 0 and at most 1")
    return factor
