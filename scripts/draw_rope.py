"""Draw the figure of docs/rope.md: the effect of each error on the lecture's RoPE slides, if implemented.

    python scripts/draw_rope.py --out=docs/images/rope_slips.png

Needs matplotlib, which is not a dependency of the package.
"""

import argparse
import io
from pathlib import Path

from gormley_vision.errors import reported

with reported():  # importing takes a moment
    import jax.numpy as jnp
    import matplotlib
    import numpy as np
    from PIL import Image

    from gormley_vision.files import path_flag
    from gormley_vision.layers.rope import (
        apply_rope,
        leave_unrotated,
        pairing_permutation,
        rope_angles,
        rope_frequencies,
        rotation_matrix,
    )

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RIGHT, WRONG, OTHER = "#1f6fb4", "#d1495b", "#7a7a7a"
Q, K = np.array([1.0, 3, 1, 3, 1, 3]), np.array([3.0, 1, 3, 1, 3, 1])


def rotated(y: np.ndarray, positions: np.ndarray, pairing) -> np.ndarray:
    """Rotate one vector to many positions, [N, 6]."""
    angles = rope_angles(jnp.asarray(positions), rope_frequencies(6))
    return np.asarray(apply_rope(jnp.tile(jnp.asarray(y, jnp.float32), (len(positions), 1)), angles, pairing))


def difference(axes) -> None:
    """Draw scores if both are rotated by t - j."""
    m = np.linspace(-20, 20, 401)
    axes.plot(m, rotated(Q, m, "interleaved") @ K / np.sqrt(6), color=RIGHT, label="by t and by j")
    wrong = np.sum(rotated(Q, m, "interleaved") * rotated(K, m, "interleaved"), axis=1) / np.sqrt(6)
    axes.plot(m, wrong, color=WRONG, label="both by t - j")
    axes.set(title="1  Rotated by the difference", xlabel="t - j", ylabel="score of the worked example")


def exponent(axes) -> None:
    """Draw the frequencies."""
    i = np.arange(1, 33)
    axes.semilogy(i, rope_frequencies(64), color=RIGHT, label=r"$10000^{-2(i-1)/d_k}$")
    with np.errstate(under="ignore"):
        axes.semilogy(i, 10000.0 ** (-(2.0 ** (i - 1)) / 64), color=WRONG, label=r"$10000^{-2^{i-1}/d_k}$")
    axes.semilogy(i, 10000.0 ** (-2.0 * (i - 1) / 32), color=WRONG, ls="--", label=r"$d = d_k/2$ in the exponent")
    axes.axhline(1e-4, color=OTHER, lw=0.8, ls=":")
    axes.text(32, 2.5e-5, "1 rad in 10,000", color=OTHER, ha="right", fontsize=7)
    axes.set(title=r"2, 4  Exponent ($d_k$ = 64)", xlabel="pair i", ylabel=r"$\theta_i$", ylim=(1e-12, 3))


def root(axes) -> None:
    """Draw the standard deviation of scores by width."""
    rng, widths = np.random.default_rng(0), 2 ** np.arange(2, 11)
    spread = []
    for d in widths:
        q, k = rng.standard_normal((2, 2000, d))
        products = (q * k).sum(axis=1)
        spread.append([(products / np.sqrt(d)).std(), (products / np.sqrt(np.linalg.norm(k, axis=1))).std()])
    right, wrong = np.transpose(spread)
    axes.semilogx(widths, right, color=RIGHT, marker=".", base=2, label=r"$/\sqrt{d_k}$")
    axes.semilogx(widths, wrong, color=WRONG, marker=".", base=2, label=r"$/\sqrt{|k|}$, a norm")
    axes.set(title="3  What is under the root", xlabel=r"$d_k$", ylabel="standard deviation of scores", ylim=(0, 6.5))


def pairs(axes) -> None:
    """Draw which channels R couples, in both forms."""
    pattern = np.asarray(rotation_matrix(jnp.full(3, 0.6))) != 0
    inverse = np.argsort(pairing_permutation(6))
    split = pattern[np.argsort(inverse)][:, np.argsort(inverse)]
    both = np.full((6, 13), np.nan)
    both[:, :6], both[:, 7:] = pattern, split
    axes.imshow(both, cmap=matplotlib.colors.ListedColormap(["#eef1f4", RIGHT]))
    axes.set(title="5  Not the same matrix", xticks=[2.5, 9.5], yticks=[])
    axes.set_xticklabels(["R: pairs (2i-1, 2i)", "matrix version:\npairs (i, i + d/2)"], fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def one_of_each(axes) -> None:
    """Draw scores if queries and keys use different pairings."""
    t = np.linspace(0, 60, 601)
    alike = np.sum(rotated(Q, t, "half") * rotated(K, t, "half"), axis=1) / np.sqrt(6)
    mixed = np.sum(rotated(Q, t, "interleaved") * rotated(K, t, "half"), axis=1) / np.sqrt(6)
    axes.plot(t, alike, color=RIGHT, label="q and k alike")
    axes.plot(t, mixed, color=WRONG, label="q as R, k as matrix version")
    axes.set(title="5  One pairing each, at t = j", xlabel="t = j", ylabel="score (should not change)", ylim=(-14, 12))


def start(axes) -> None:
    """Draw scores for positions from 0 and from 1."""
    n = 24
    for first, style in ((0, "-"), (1, "--")):
        angles = leave_unrotated(rope_angles(first + jnp.arange(n), rope_frequencies(6)), first=1)
        q, k = (apply_rope(jnp.tile(jnp.asarray(v, jnp.float32), (n + 1, 1)), angles) for v in (Q, K))
        scores = np.asarray(q @ k.T) / np.sqrt(6)
        axes.plot(scores[1:, 6], color=RIGHT, ls=style, label=f"a token, from {first}")
        axes.plot(scores[1:, 0], color=WRONG, ls=style, label=f"unrotated [CLS], from {first}")
    axes.set(title="6  Positions from 0 or from 1", xlabel="token of the query", ylabel="score against", ylim=(-5, 17))


def main() -> None:
    """Draw the six panels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=path_flag, default=Path("docs/images/rope_slips.png"), help="the PNG file")
    out = parser.parse_args().out
    plt.rcParams.update({"font.size": 8, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(2, 3, figsize=(10, 5.4), layout="constrained")
    for draw, axes in zip((difference, exponent, root, pairs, one_of_each, start), panels.flat, strict=True):
        draw(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(64).save(out, optimize=True)  # a third of the size


if __name__ == "__main__":
    with reported():
        main()
