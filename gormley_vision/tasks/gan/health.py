"""How a GAN is doing: figures of generated and real images, and the rules that read them.

Pixels alone are compared, so no network is needed and a check costs about one step. `examined` has the figures; each is
a ratio or a probability, so that rules hold for any data set.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from gormley_vision.health import Line, Rule, worsening
from gormley_vision.randomness import named_key
from gormley_vision.tasks.gan import spectral_norm
from gormley_vision.tasks.gan.updates import effective
from gormley_vision.tasks.networks import to_unit_range

if TYPE_CHECKING:
    from gormley_vision.tasks.gan.task import GAN, GANState

Metrics = dict[str, jax.Array]
Arrays = Mapping[str, jax.Array]
NEAR = 0.1  # of the mean distance of real images: nearer ones are taken for the same
FAR = 0.25  # of the mean distance of real images: an energy distance at which samples are not like them
_POWER_ITERATIONS = 3


def examined(gan: "GAN", state: "GANState", key: jax.Array, real: Arrays, held_out: Arrays) -> Metrics:
    """Return figures of the generator itself and the discriminator, on n real examples and, if there are any, held-out.

    diversity: mean distance of two fakes over that of two real ones.
    distance: energy distance (Szekely & Rizzo 2013) of fakes and real ones, unbiased, over the mean distance of two
        real ones: 0 for one distribution.
    order: the probability that D rates a real example above a fake; 0.5 if it cannot tell them apart.
    held_out_order: the same for real examples that it was not trained on.
    gap: mean logit of real less that of fake examples.
    support: images that the generator seems to have, by the birthday paradox: n (n - 1) / 2 pairs over those nearer
        than NEAR (Arora & Zhang 2017, arXiv:1706.08224); twice the number of pairs if there is none.
    spectral_norm: the largest singular value of any of D's matrices as it is used, after 3 power iterations.
    """
    examples, labels = _prepared(gan, real)
    count = len(examples)
    noise = gan.latents(named_key(key, "health", state.step), count)
    fakes = gan.generate(state.generator.variables, noise, labels)
    real_pairs, fake_pairs = _distances(examples, examples), _distances(fakes, fakes)
    within_real, within_fake = (x.sum() / (count * (count - 1)) for x in (real_pairs, fake_pairs))
    energy = 2 * _distances(examples, fakes).mean() - within_real - within_fake
    near = jnp.sum(jnp.triu(fake_pairs < NEAR * within_real, 1))
    variables = effective(gan, state.discriminator.variables)

    def logits(x: jax.Array, labels: jax.Array | None) -> jax.Array:
        found = gan.discriminator.apply(variables, x, labels, train=False)
        found = found[0] if isinstance(found, tuple) else found
        return found.reshape(len(x), -1).mean(axis=1)

    of_real, of_fakes = logits(examples, labels), logits(fakes, labels)
    figures = {
        "diversity": within_fake / within_real,
        "distance": energy / within_real,
        "order": _order(of_real, of_fakes),
        "gap": of_real.mean() - of_fakes.mean(),
        "support": count * (count - 1) / 2 / jnp.maximum(near, 0.5),
        "spectral_norm": _largest_singular_value(gan, variables["params"], key),
    }
    if held_out:
        figures["held_out_order"] = _order(logits(*_prepared(gan, held_out)), of_fakes)
    return figures


def _prepared(gan: "GAN", examples: Arrays) -> tuple[jax.Array, jax.Array | None]:
    x = examples[gan.example]
    return (to_unit_range(x) if gan.example == "image" else x.astype(jnp.float32)), (
        examples["label"] if gan.classes else None
    )


def _distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the Euclidean distances [n, m] of examples; those of equal ones are 0, though products are rounded."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    squared = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1)[None] - 2 * a @ b.T
    return jnp.sqrt(jnp.where(squared > 1e-6 * jnp.sum(a**2, axis=1)[:, None], squared, 0))


def _order(above: jax.Array, below: jax.Array) -> jax.Array:
    apart = above[:, None] - below[None]
    return jnp.mean((apart > 0) + 0.5 * (apart == 0))


def _largest_singular_value(gan: "GAN", params: Mapping, key: jax.Array) -> jax.Array:
    vectors = spectral_norm.start(params, gan.matrices, named_key(key, "health/spectral"))
    for _ in range(_POWER_ITERATIONS):
        vectors = spectral_norm.iterated(params, gan.matrices, vectors)
    values = spectral_norm.singular_values(params, gan.matrices, vectors)
    return jnp.max(jnp.stack([value.max() for value in values.values()]))


# ---------------------------------------------------------------------------------------------------------
# Rules. Figures of the first checks, when the generator knows nothing, show no sign. Those that look back at several
# checks say which can be among them: a roll-back goes to before the first.


def _collapse(lines: Sequence[Line], share: float) -> str:
    diversity = [line["health/diversity"] for line in lines]
    best = max(diversity)
    if best < 0.5 or diversity[-1] > share * best:
        return ""
    return f"two samples differ by {diversity[-1]:.2f} of what two real images differ, {best:.2f} before"


def _apart(lines: Sequence[Line]) -> str:
    best = min(line["health/distance"] for line in lines)
    now = lines[-1]["health/distance"]
    if now < FAR or now < 3 * best:
        return ""
    return f"samples are {now:.2f} of the spread of real images away from them, {best:.2f} before"


def _stuck(lines: Sequence[Line], checks: int) -> bool:
    """Return whether samples were far from real images in so many checks, and in the last half of them no nearer."""
    distances = [line["health/distance"] for line in lines[-checks:]]
    if len(distances) < checks or min(distances) < FAR:
        return False
    return min(distances[checks // 2 :]) > 0.9 * min(distances[: checks // 2])


def _is_far(line: Line) -> bool:
    return line["health/distance"] >= FAR


def _never_near(lines: Sequence[Line]) -> str:
    if not _stuck(lines, 20):
        return ""
    return (
        f"samples are {lines[-1]['health/distance']:.2f} of the spread of real images away from them, and not nearing"
    )


def _knows_all(line: Line) -> bool:
    return _is_far(line) and line["health/order"] >= 0.99


def _overpowered(lines: Sequence[Line]) -> str:
    if min(line["health/order"] for line in lines[-10:]) < 0.99 or not _stuck(lines, 10):
        return ""
    now = lines[-1]
    return (
        f"D rates {100 * now['health/order']:.1f} % of real images above fake ones, whose distance from them is "
        f"{now['health/distance']:.2f} and does not fall"
    )


def _is_fooled(line: Line) -> bool:
    return line["health/order"] <= 0.05


def _fooled(lines: Sequence[Line]) -> str:
    before, now = lines[-5:][0], lines[-1]
    if len(lines) < 5 or not all(map(_is_fooled, lines[-5:])):
        return ""
    # A generator that is ahead, and still nearing real images, is no fault.
    if now["health/distance"] < max(0.1, before["health/distance"]):
        return ""
    share = 100 * (1 - now["health/order"])
    return f"D rates {share:.1f} % of fake images above real ones, whose distance from them does not fall"


def _memorises(lines: Sequence[Line]) -> str:
    trained, held_out = lines[-1]["health/order"], lines[-1]["health/held_out_order"]
    if trained - held_out < 0.2:
        return ""
    return (
        f"D rates {100 * trained:.0f} % of training images above fake ones, and {100 * held_out:.0f} % of held-out ones"
    )


def _dead(lines: Sequence[Line]) -> str:
    norms = [line["gradient_norm/generator"] for line in lines]
    if norms[-1] > 1e-3 * max(norms):
        return ""
    return f"the generator's gradient has norm {norms[-1]:.2g}, and had {max(norms):.2g}"


RULES = (
    Rule("collapse", ("health/diversity",), partial(_collapse, share=0.5), checks=4),
    Rule("total_collapse", ("health/diversity",), partial(_collapse, share=0.05)),
    Rule("divergence", ("health/distance",), _apart, checks=4),
    Rule("divergence", ("health/distance",), _never_near, begins=_is_far),
    Rule("D_overpowering", ("health/distance", "health/order"), _overpowered, begins=_knows_all),
    Rule("D_fooled", ("health/distance", "health/order"), _fooled, begins=_is_fooled),
    Rule("D_overfitting", ("health/order", "health/held_out_order"), _memorises, checks=5, serious=False),
    Rule("dead_generator", ("gradient_norm/generator",), _dead, checks=5),
    worsening("eval/frechet_distance"),
)
