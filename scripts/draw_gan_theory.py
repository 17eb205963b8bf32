"""Draw the pictures of docs/gan_theory.md, and print its tables: what was measured beside what theory says.

    python scripts/draw_gan_theory.py --out=docs/images

Needs matplotlib, which is not a dependency of the package.
"""

import argparse
import io
from pathlib import Path

from gormley_vision.errors import reported

with reported():  # importing takes a moment
    import jax
    import jax.numpy as jnp
    import matplotlib
    import numpy as np
    from PIL import Image

    from gormley_vision.files import path_flag, refuse_unwritable, write_atomically
    from gormley_vision.theory import discrete, games, gradients

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BLUE, RED, GREEN, GREY, GOLD = "#1f6fb4", "#d1495b", "#3a7d44", "#7a7a7a", "#c98a1b"
REAL, FAKE = np.array([1, 2, 6, 9, 12, 6, 3, 1]), np.array([10, 9, 7, 5, 4, 2, 2, 1])  # of 40
LINE, LINE_REAL, LINE_FAKE = np.arange(-2.0, 3.0), np.array([3, 3, 0, 0, 0]), np.array([0, 0, 1, 2, 3])
TURNING_REAL, TURNING_FAKE = np.array([3, 0, 2, 0, 1]), np.array([0, 4, 0, 2, 0])


def row(name: str, theory: object, measured: object) -> None:
    """Print a row of a table."""
    texts = [f"{x:.4f}" if isinstance(x, float | np.floating | jax.Array) else str(x) for x in (theory, measured)]
    print(f"| {name} | {texts[0]} | {texts[1]} |")


def discriminator() -> plt.Figure:
    """Draw a discriminator in training on a discrete set, and the value of the game."""
    p, q = REAL / 40, FAKE / 40
    logits = discrete.train_discriminator(REAL, FAKE, steps=200, rate=4.0)
    trained, optimal = np.asarray(jax.nn.sigmoid(logits)), discrete.optimal_discriminator(p, q)
    values = np.array([discrete.value(row, REAL, FAKE) for row in logits[:41]])
    best = float(discrete.best_value(p, q))
    row("D at the last point but one, p/(p+q)", float(optimal[6]), float(trained[200, 6]))
    row("greatest error of D, 200 steps", "0", f"{np.abs(trained[200] - optimal).max():.0e}")
    row("V, 200 steps", best, float(discrete.value(logits[200], REAL, FAKE)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    points = np.arange(8)
    left.bar(points - 0.18, p, 0.36, color=GREEN, alpha=0.35, label="p, real")
    left.bar(points + 0.18, q, 0.36, color=GOLD, alpha=0.35, label="q, fake")
    left.plot(points, optimal, "_", color=RED, ms=22, mew=2, label="p / (p+q)")
    for step, size, shade in ((2, 3, 0.35), (10, 4, 0.6), (200, 6, 1.0)):
        left.plot(points, trained[step], "o", color=BLUE, alpha=shade, ms=size, label=f"D, {step} steps")
    left.set(xlabel="point", title="Discriminator on eight points", ylim=(0, 1))
    left.legend(ncols=2, loc="upper left")
    right.plot(values, color=BLUE, marker=".", label="V of the trained D")
    right.axhline(best, color=RED, ls="--", label="-log 4 + 2 JSD(p, q)")
    right.axhline(-np.log(4), color=GREY, ls=":", label="-log 4, of D = 1/2")
    right.set(xlabel="step of gradient ascent", ylabel="V(D, G) (nats)", title="Value of the game")
    right.legend(loc="center right")
    return figure


def generator_gradients() -> plt.Figure:
    """Draw what reaches the generator as D improves, on one real and one fake point."""
    rate, steps = 0.1, np.unique(np.geomspace(1, 10000, 22).astype(int))
    psi = np.asarray(gradients.train_slope(int(steps[-1]), rate))
    time = rate * np.geomspace(0.5, 12000, 300)
    u = np.exp(gradients.slope_in_theory(time) / 2)
    theory = {"saturating": 2 * np.log(u) / (1 + u), "non_saturating": 2 * np.log(u) * u / (1 + u)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    logits = np.linspace(-6, 3, 200)
    believed = 1 / (1 + np.exp(-logits))
    for name, color, slope in (("saturating", RED, believed), ("non_saturating", BLUE, 1 - believed)):
        label = name.replace("_", "-")
        some = np.arange(-6, 4)
        left.plot(logits, slope, color=color)
        found = [-float(gradients.logit_slope(name, jnp.asarray(x, jnp.float32))) for x in some]
        left.plot(some, found, "o", color=color, ms=4, label=label)
        measured = np.array([-float(gradients.position_slope(name, jnp.asarray(psi[k]))) for k in steps])
        right.loglog(time / rate, theory[name], color=color)
        right.loglog(steps, measured, "o", color=color, ms=4, label=label)
        row(f"pull on the fake point after {steps[-1]} steps of D, {label}", theory_at(name), float(measured[-1]))
    left.set(xlabel="logit of a fake (left: D is sure that it is fake)", ylabel="size of the loss's slope")
    left.set(title="Slope of the generator's loss: D and 1 - D")
    right.set(xlabel="steps of D", ylabel="pull on the fake point", title="As D is trained on two points")
    left.legend()
    right.legend(loc="lower center")
    return figure


def theory_at(objective: str) -> float:
    """Return the pull on the fake point after 10,000 steps of 0.1, by Wright's omega."""
    u = np.exp(gradients.slope_in_theory(np.asarray(1000.0)) / 2)
    return float(2 * np.log(u) * (1 if objective == "saturating" else u) / (1 + u))


def bilinear() -> plt.Figure:
    """Draw paths of the bilinear game, and growth a step by momentum."""
    game, step = games.bilinear_game(), 0.3
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for alternating, momentum, steps, color, label in (
        (False, 0.0, 30, RED, "simultaneous"),
        (True, 0.0, 100, GREY, "alternating"),
        (True, -0.5, 150, BLUE, "alternating, momentum -0.5"),
        (True, 0.3, 18, GOLD, "alternating, momentum 0.3"),
    ):
        path = games.path_of(games.descent(game, step, alternating, momentum), (1.0, 0.0), steps)
        left.plot(*path.T, color=color, marker=".", ms=3, lw=0.9, label=label)
    left.plot(0, 0, "k+", ms=9)
    left.set(xlabel=r"$\theta$", ylabel=r"$\psi$", title="18 to 150 steps of 0.3 from (1, 0)", aspect="equal")
    left.set(xlim=(-4.2, 4.2), ylim=(-4.2, 5.6))
    left.legend(loc="upper left")
    fine = np.linspace(-0.9, 0.6, 151)
    for alternating, color, label in ((False, RED, "simultaneous"), (True, BLUE, "alternating")):
        largest = [np.abs(np.roots(games.bilinear_polynomial(step, alternating, b))).max() for b in fine]
        right.plot(fine, largest, color=color)
        some = np.arange(-8, 6, 2) / 10
        updates = [games.descent(game, step, alternating, b) for b in some]
        grown = [np.exp(games.rate_of(games.path_of(update, (1.0, 0.0), 400))) for update in updates]
        right.plot(some, grown, "o", color=color, ms=4, label=label)
        for b in (-0.5, 0.0, 0.5):
            path = games.path_of(games.descent(game, step, alternating, b), (1.0, 0.0), 400)
            root = np.abs(np.roots(games.bilinear_polynomial(step, alternating, b))).max()
            row(f"growth a step, {label}, momentum {b}", root, np.exp(games.rate_of(path)))
    right.axhline(1, color=GREY, ls=":")
    right.set(xlabel="momentum", ylabel="growth of the distance a step", ylim=(0.96, 1.16))
    right.set(title="Lines: largest root. Points: measured")
    right.legend(loc="upper left")
    return figure


VARIANTS = (
    ("none, saturating", {"objective": "saturating"}, 0.0, GREY),
    ("none, non-saturating", {"objective": "non_saturating"}, 0.0, GOLD),
    ("R1, weight 0.3", {"objective": "non_saturating", "r1": 0.3}, 0.3, RED),
    ("R1 + R2, 0.3 each", {"objective": "relativistic_paired", "r1": 0.3, "r2": 0.3}, 0.6, BLUE),
    ("instance noise, variance 0.4", {"objective": "non_saturating", "noise": np.sqrt(0.4)}, 0.2, GREEN),
)


def dirac() -> plt.Figure:
    """Draw the Dirac-GAN: paths, distances, the slow approach of the non-saturating loss, and rates by damping."""
    figure, ((plane, far), (slow, rates)) = plt.subplots(2, 2, figsize=(9, 7.4), layout="constrained")
    for name, options, damping, color in VARIANTS:
        game = games.dirac_game(**options)
        flow = jax.vmap(lambda theta, game=game: games.flow_of(game, (theta, 0.0), 0.05, 1200))
        path, near = np.asarray(flow(np.array([1.0, 1e-2])))
        plane.plot(*path.T, color=color, lw=1.2, label=name)
        time = 0.05 * np.arange(len(near))
        far.semilogy(time, np.linalg.norm(near, axis=1) / 1e-2, color=color, lw=3 if color == GREY else 1.2)
        eigenvalue = games.dirac_eigenvalues_in_theory(0.5, damping)[0]
        if damping:
            far.semilogy(time, np.exp(eigenvalue.real * time), color=color, ls="--", lw=0.9)
        found = games.eigenvalues(game)[0]
        row(f"eigenvalue, {name}", f"{eigenvalue.real:.3f} +- {abs(eigenvalue.imag):.3f}i",
            f"{found.real:.3f} +- {abs(found.imag):.3f}i")  # fmt: skip
        row(f"rate, {name}", eigenvalue.real, games.rate_of(near, 0.05))
    plane.plot(0, 0, "k+", ms=9)
    plane.set(xlabel=r"$\theta$", ylabel=r"$\psi$", title="Paths from (1, 0), infinitely small steps", aspect="equal")
    plane.set(xlim=(-1.2, 3.6), ylim=(-1.6, 1.6), xticks=[-1, 0, 1])
    plane.legend(loc="center right")
    far.set(xlabel="time (steps x rate)", ylabel="distance, as a share of the first", ylim=(1e-6, 3))
    far.set(title="Near (0, 0). Dashed: exp(real part x time)")
    _draw_slow(slow)
    _draw_rates(rates)
    return figure


def _draw_slow(axes) -> None:
    game = games.dirac_game("non_saturating")
    path = games.flow_of(game, (1.0, 0.0), 0.1, 20000)
    time = 0.1 * np.arange(len(path))
    distance = np.linalg.norm(path, axis=1)
    axes.loglog(time[1:], distance[1:], color=GOLD, label="infinitely small steps")
    axes.loglog(time[1:], 1 / np.sqrt(1 + time[1:] / 8), color="k", ls="--", lw=0.9, label=r"$1/\sqrt{1 + t/8}$")
    row("non-saturating, none: distance at t = 2000", 1 / np.sqrt(1 + 2000 / 8), distance[-1])
    stepped = np.linalg.norm(games.path_of(games.descent(game, 0.1, False), (1.0, 0.0), 20000), axis=1)
    axes.loglog(time[1:], stepped[1:], color=RED, lw=1, label="simultaneous steps of 0.1")
    axes.axhline(np.sqrt(0.2), color="k", ls=":", lw=0.9, label=r"$\sqrt{2 \times 0.1}$")
    row("the same, simultaneous steps of 0.1", np.sqrt(0.2), stepped[-2000:].mean())
    axes.set(
        xlabel="time (steps x rate)", ylabel="distance", title="Non-saturating without a penalty: slow", ylim=(0.04, 2)
    )
    axes.legend(loc="lower left")


def _draw_rates(axes) -> None:
    fine = np.linspace(0, 4, 401)
    axes.plot(fine, [-games.dirac_eigenvalues_in_theory(0.5, c).real.max() for c in fine], color="k", label="theory")

    def path(r1=0.0, r2=0.0, noise=0.0):
        return games.flow_of(games.dirac_game("non_saturating", r1, r2, noise), (1e-2, 0.0), 0.1, 600)

    dampings = np.array([0.2, 0.45, 0.7, 1.3, 2.0, 3.0])  # and a little more, so that no points coincide
    for label, marker, color, more, paths in (
        ("R1 of weight c", "o", RED, 0.0, jax.vmap(path)),
        ("R1 + R2 of c/2 each", "s", BLUE, 0.07, jax.vmap(lambda c: path(c / 2, c / 2))),
        ("instance noise of variance 2c", "^", GREEN, 0.14, lambda cs: [path(noise=np.sqrt(2 * c)) for c in cs]),
    ):
        found = [-games.rate_of(one, 0.1) for one in paths(dampings + more)]
        axes.plot(dampings + more, found, marker, color=color, ms=5, label=label)
    axes.set(xlabel="damping c", ylabel="rate of approach", title="Measured rates: the best damping is 1")
    axes.legend()


def wasserstein() -> plt.Figure:
    """Draw critics against the exact distance: under WGAN-GP's penalty, and one value a point."""
    p, q, distances = LINE_REAL / 6, LINE_FAKE / 6, np.abs(LINE[:, None] - LINE[None])
    exact, _ = discrete.transport(p, q, distances)
    row("W by the primal and by the dual", exact, discrete.best_potential(p, q, distances)[0])
    excess = discrete.gradient_penalty_excess(p, q, LINE, 10.0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    plane, line = np.stack([LINE, 0 * LINE], axis=1), LINE[:, None]
    for points, color, label in ((line, RED, "points on a line"), (plane, BLUE, "the same in the plane")):
        reached = _critics(points, LINE_REAL, LINE_FAKE, 10.0)
        smooth = [np.convolve(one, np.ones(50) / 50, "valid") for one in reached]
        left.plot(np.transpose(smooth)[:1500], color=color, lw=1.2, label=[label] + [None] * 7)
        last = reached[:, -100:].mean(axis=1)
        row(f"WGAN-GP, {label}, 8 seeds, sorted", f"{exact + excess:.3f}", " ".join(f"{x:.2f}" for x in np.sort(last)))
    for level, name in ((exact + excess, "W + excess"), (-exact + excess, "-W + excess")):
        left.axhline(level, color="k", ls="--", lw=0.9)
        left.text(1500, level + 0.15, f"{name} = {level:.2f}", ha="right", fontsize=8)
    left.axhline(exact, color=GREY, lw=0.9)
    left.text(1500, exact - 0.45, f"W = {exact:.2f}", ha="right", fontsize=8, color=GREY)
    left.set(
        xlabel="step",
        ylabel="critic's objective, mean of 50",
        title="WGAN-GP's critic, weight 10, 8 seeds",
        ylim=(-3.2, 4.6),
    )
    left.legend(loc="center right", bbox_to_anchor=(1, 0.4))
    weights = np.array([1.0, 3, 10, 30, 100])
    potentials = jax.vmap(lambda w: discrete.train_potential(LINE_REAL, LINE_FAKE, distances, w))(weights)
    lower, upper = np.transpose([discrete.bounds_of(f, p, q, distances) for f in np.asarray(potentials)])
    row("one value a point, weight 100: bounds", f"{exact:.4f}", f"{lower[-1]:.4f} to {upper[-1]:.4f}")
    right.fill_between(weights, lower, upper, color=GREEN, alpha=0.25, label="one value a point: bounds")
    right.plot(weights, upper, "o-", color=GREEN, ms=4)
    right.plot(weights, lower, "o-", color=GREEN, ms=4)
    fine = np.geomspace(1, 100, 50)
    in_theory = [exact + discrete.gradient_penalty_excess(p, q, LINE, w) for w in fine]
    right.plot(fine, in_theory, "k--", lw=0.9, label="W + excess, WGAN-GP")
    some = weights[:3]
    networks = [_critics(plane, LINE_REAL, LINE_FAKE, float(w))[:, -100:].mean() for w in some]
    right.plot(some, networks, "s", color=BLUE, ms=5, label="WGAN-GP's critic, in the plane")
    right.axhline(exact, color=GREY, lw=0.9, label="W, exact")
    right.set(xscale="log", xlabel="weight of the penalty", ylabel="distance", title="What the penalty's weight costs")
    right.legend()
    _print_turning()
    return figure


def _critics(points: np.ndarray, real: np.ndarray, fake: np.ndarray, weight: float) -> np.ndarray:
    """Train critics from 8 seeds for 2000 steps: the objective by seed and step."""
    batches = [jnp.asarray(points[discrete.batch_of(counts)], jnp.float32) for counts in (real, fake)]
    with jax.enable_x64(False):
        train = jax.vmap(lambda key: discrete.train_critic(key, *batches, weight, 2000))
        return np.asarray(train(jax.random.split(jax.random.key(0), 8)))


def _print_turning() -> None:
    p, q = TURNING_REAL / 6, TURNING_FAKE / 6
    exact, _ = discrete.transport(p, q, np.abs(LINE[:, None] - LINE[None]))
    best = exact + discrete.gradient_penalty_excess(p, q, LINE, 10.0)
    found = _critics(np.stack([LINE, 0 * LINE], axis=1), TURNING_REAL, TURNING_FAKE, 10.0)[:, -100:].mean(axis=1)
    row(
        f"WGAN-GP, real and fake in turn (W = {exact:.2f}), in the plane",
        best,
        f"{found.min():.2f} to {found.max():.2f}",
    )


def main() -> None:
    """Draw all pictures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=path_flag, default=Path("docs/images"), help="the folder for the PNG files")
    out = parser.parse_args().out
    refuse_unwritable(out / "gan_theory_discriminator.png")
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8, "legend.frameon": False})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    for draw, name in (
        (discriminator, "discriminator"),
        (generator_gradients, "gradients"),
        (bilinear, "bilinear"),
        (dirac, "dirac"),
        (wasserstein, "wasserstein"),
    ):
        with jax.enable_x64(True):
            figure = draw()
        drawn, small = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, dpi=105)
        plt.close(figure)
        Image.open(drawn).convert("RGB").quantize(64).save(small, "PNG", optimize=True)  # a third of the size
        write_atomically(out / f"gan_theory_{name}.png", small.getvalue())


if __name__ == "__main__":
    with reported():
        main()
