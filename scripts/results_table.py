"""The README's table of results, from results/: figure, seeds, hardware, commit, command.

    python scripts/results_table.py [--docs=README.md]

Figures and seeds are computed from the files. Hardware, commit and command are the file's own where it has them; what
results/provenance.json adds was said elsewhere at the time (`said_in`), or is the commit that brought the file into the
repository (`brought_by`; in brackets). All else is "not recorded". A new file needs a function here and an entry there.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gormley_vision.errors import reported
from gormley_vision.files import path_flag, read_json, write_atomically

RESULTS = Path(__file__).parents[1] / "results"
MARKS = ("<!-- results: written by scripts/results_table.py -->\n", "<!-- end of results -->\n")
UNKNOWN = "not recorded"


class Finding(NamedTuple):
    """What a file says, in a line, and of which seeds."""

    figure: str
    seeds: str


def label_agreement(content: Any) -> Finding:
    """Digits of the label that was asked for, of a conditional GAN."""
    mean = content["averaged_generator"]["mean"]
    return Finding(
        f"a classifier of real digits sees the label asked for in {100 * mean:.1f} % of samples",
        seeds_of(run["training_seed"] for run in content["runs"]),
    )


def dcgan_mnist_recipe(content: Any) -> Finding:
    """Unconditional digits, by a judge's features."""
    now, before = content["mean"]["now"]["frechet"], content["mean"]["before"]["frechet"]
    real = content["real"]["real"]["frechet"]
    return Finding(
        f"Fréchet distance to real digits {now:.1f} (recipe before: {before:.1f}; other real digits: {real:.1f})",
        seeds_of(run["seed"] for run in content["runs"]),
    )


def sweep(what: str) -> Callable[[Any], Finding]:
    """A function of a leaderboard: its arms from the best down."""

    def finding(content: Any) -> Finding:
        arms = sorted(content["arms"], key=lambda arm: -arm["mean"])
        parts = []
        for arm in arms:
            spread = f" ± {100 * arm['standard_deviation']:.1f}" if len(arm["curves"]) > 1 else ""
            parts.append(f"{100 * arm['mean']:.1f}{spread} ({short(arm['arm'])})")
        rest = f"; {len(parts) - 3} others below" if len(parts) > 3 else ""
        return Finding(f"{what}, %: {', '.join(parts[:3])}{rest}", seeds_of(arms[0]["curves"]))

    return finding


def short(arm: str) -> str:
    """The settings of an arm without their sections, and without what is absent."""
    parts = [part.partition(".")[2] for part in arm.split(", ")]
    return ", ".join(part for part in parts if not part.endswith("=none"))


def vit_resolution(content: Any) -> Finding:
    """One rotary net, at the size it was trained at and a larger one."""
    rows = [row for row in content["rows"] if row["rope"] == "naver_axial"]

    def mean(size: int, rule: str) -> float:
        of = [row["accuracy"] for row in rows if (row["image_size"], row["rope_scaling"]) == (size, rule)]
        return 100 * statistics.mean(of)

    return Finding(
        f"axial RoPE trained at 28 pixels, accuracy, %: {mean(28, 'none'):.1f} there; at 44 pixels "
        f"{mean(44, 'interpolate'):.1f} with positions interpolated, {mean(44, 'none'):.1f} without",
        seeds_of(row["run"].removeprefix("axial") for row in rows),
    )


def train_step(content: Any) -> Finding:
    """A DCGAN step against PyTorch's."""
    return Finding(f"a DCGAN step takes {ratio(content, 'torch')} of PyTorch eager's time", "–")


def gan_recipes(content: Any) -> Finding:
    """Steps of GAN recipes against PyTorch's."""
    parts = [f"{name} {ratio(figures, 'torch')}" for name, figures in content["recipes"].items()]
    return Finding(f"steps of GAN recipes over PyTorch eager's: {', '.join(parts)}", "–")


def image_to_image_step(content: Any) -> Finding:
    """Steps of pix2pix and of EDSR against PyTorch's."""
    parts = [f"{name} {ratio(figures, 'torch')}" for name, figures in content["steps"].items()]
    return Finding(f"image-to-image steps over PyTorch eager's: {', '.join(parts)}", "–")


def vit_step(content: Any) -> Finding:
    """A ViT step against timm's."""
    plain, mixed = ratio(content, "timm"), ratio(content, "timm, RoPE mixed")
    return Finding(f"a ViT-Ti/4 step takes {plain} of timm's time; with RoPE-Mixed {mixed} of that of timm's own", "–")


def lm_step(content: Any) -> Finding:
    """A step of nanoGPT's recipe, and sampling, against PyTorch's."""
    texts = [ratio(content["texts"], f"nanoGPT, {count}") for count in ("one text", "8 texts")]
    return Finding(
        f"a step of nanoGPT's CPU recipe takes {ratio(content, 'nanoGPT')} of its time in PyTorch; 256 tokens of eight "
        f"texts at once {texts[0]} of PyTorch's time for one, {texts[1]} for eight",
        "–",
    )


def masked_patches_step(content: Any) -> Finding:
    """MAE's encoder by what it reads."""
    shares = [f"{x['time']:.2f} with {x['share']:.0%} (products {x['products']:.2f})" for x in content["encoder"][1:]]
    return Finding(f"forward and backward of MAE's encoder over those on all patches: {', '.join(shares)}", "–")


def lm_recipe(content: Any) -> Finding:
    """NanoGPT's recipe, and the best of its changes."""
    adam = [arm for arm in content["arms"] if "name=adam" in arm["arm"] and "learning_rate=0.001" in arm["arm"]]
    unchanged = ("final_rate=0.1", "activation=erf", "norm=layer", "position=learned", "qk_norm=False")
    (recipe,) = (arm for arm in adam if all(words in arm["arm"] for words in unchanged))
    best = min(content["arms"], key=lambda arm: arm["mean"])
    figures = [f"{arm['mean']:.3f} ± {arm['standard_deviation']:.3f}" for arm in (recipe, best)]
    return Finding(
        f"nats a character of tiny Shakespeare's held-out text: {figures[0]} by nanoGPT's CPU recipe, {figures[1]} by "
        "the same tokens and size with RoPE, SwiGLU, Muon and others",
        seeds_of(best["curves"]),
    )


def lm_context(content: Any) -> Finding:
    """Nets whose context was widened, after their last step."""
    rows = [row for row in content["rows"] if row["step"] == max(row["step"] for row in content["rows"])]
    arms = dict.fromkeys(row["arm"] for row in rows)
    means = {arm: statistics.mean(row["value"] for row in rows if row["arm"] == arm) for arm in arms}
    parts = "; ".join(f"{mean:.3f} {arm}" for arm, mean in means.items())
    return Finding(
        f"nats a character after 600 steps at 16 characters and 600 at 256: {parts}",
        seeds_of(row["seed"] for row in rows),
    )


def labels(what: str) -> Callable[[Any], Finding]:
    """A function of what scripts/draw_arms.py wrote: each arm at its fewest and its most labelled examples."""

    def finding(content: Any) -> Finding:
        rows, parts = content["rows"], []
        few, most = (f(row["examples"] for row in rows) for f in (min, max))
        for arm in dict.fromkeys(row["arm"] for row in rows):
            own = [row for row in rows if row["arm"] == arm]
            values = [[row["value"] for row in own if abs(row["examples"] - size) <= 1] for size in (few, most)]
            parts.append(
                " and ".join(f"{100 * statistics.mean(v):.1f}" if v else "(not run)" for v in values) + f" {arm}"
            )
        seeds = seeds_of(row["seed"] for row in rows if "seed" in row)
        return Finding(f"{what} with {few:,} and {most:,} labels, %: {'; '.join(parts)}", seeds)

    return finding


def ratio(content: Any, peer: str) -> str:
    """Both conditions of a benchmark, medians of pairs."""
    alone, busy = (
        content[condition]["ratios"][peer]["median_of_pairs"]
        for condition in ("alone", "another process copies memory")
    )
    return f"{alone:.2f} (while another process copies memory, {busy:.2f})"


def scaling(content: Any) -> Finding:
    """Plans on paper."""
    fits, chips = sum(plan["fits"] for plan in content), [plan["chips"] for plan in content]
    return Finding(
        f"{fits} of {len(content)} plans of ViT-L/16, H/14 and 22B on {min(chips)} to {max(chips):,} TPU v5p fit, "
        "compiled and not run",
        "–",
    )


def faults(content: Any) -> Finding:
    """What was broken on purpose."""
    rows = content.values()
    tries, lost = sum(row["tries"] for row in rows), sum(row["states_lost"] for row in rows)
    return Finding(
        f"{tries} runs killed, starved or damaged, {lost} states lost", seeds_of(row["seed"] for row in rows)
    )


def modes(what: str, share: str, shown: Callable[[float], str]) -> Callable[[Any], Finding]:
    """A function of what scripts/mode_coverage.py wrote: by game, the fewest and the most modes, and a mean share."""

    def finding(content: Any) -> Finding:
        games: dict[str, list[Any]] = {}
        for run in content["runs"]:
            games.setdefault(run["run"].partition(",")[0].replace("_", " "), []).append(run)
        parts = []
        for game, runs in games.items():
            counts = [run["modes"] for run in runs]
            counts = sorted({min(counts), max(counts)})
            mean = statistics.mean(run[share] or 0 for run in runs)
            parts.append(f"{' to '.join(map(str, counts))} modes, {shown(mean)} ({game})")
        return Finding(f"{what}: {'; '.join(parts)}", seeds_of(run["training_seed"] for run in content["runs"]))

    return finding


def cifar_gans(content: Any) -> Finding:
    """The cards that benchmarks/cifar_gans.py wrote, and of training images the floor."""
    cards = list(content.values())
    by_name: dict[str, list[float]] = {}
    for card in cards:
        by_name.setdefault(card["name"], []).append(card["figures"]["frechet_distance"])
    parts = [
        f"{statistics.mean(found):.3g}{f' ± {statistics.stdev(found):.1f}' if len(found) > 1 else ''} ({name})"
        for name, found in sorted(by_name.items(), key=lambda item: statistics.mean(item[1]))
    ]
    return Finding(
        "Fréchet distance to CIFAR-10's test images (JPEG q75 copy) by ResNet-56's features, after 10 minutes of one "
        f"core each: {', '.join(parts)}",
        seeds_of(card["fake"]["training_seed"] for card in cards if "training_seed" in card["fake"]),
    )


def super_resolution(content: Any, scale: int) -> Finding:
    """PSNR of luma, beside bicubic interpolation."""
    means = {name: found["mean"] for name, found in content["sets"].items()}
    parts = [f"{name} {mean['psnr']:.2f} (bicubic {mean['given_psnr']:.2f})" for name, mean in means.items()]
    return Finding(f"super-resolution x{scale}, PSNR of luma in dB: {', '.join(parts)}", str(content["seed"]))


def photo_editing(content: Any) -> Finding:
    """PSNR of held-out photographs, beside what needs no net."""
    parts = []
    for name, found in content["runs"].items():
        mean = found["mean"]
        nearest = f", nearest pixel {mean['nearest_psnr']:.2f}" if "nearest_psnr" in mean else ""
        parts.append(f"{name} {mean['psnr']:.2f} ({found['given']} {mean['given_psnr']:.2f}{nearest})")
    return Finding(f"100 held-out photographs, PSNR in dB: {', '.join(parts)}", str(content["seed"]))


def pix2pix_losses(content: Any) -> Finding:
    """PSNR and sharpness of each arm of configs/sweeps/pix2pix_losses.py."""
    psnr, sharpness = (table["arms"] for table in content["metrics"])
    parts = [
        f"{a['mean']:.2f} dB and {b['mean']:.2f} ({pix2pix_arm(a['arm'])})"
        for a, b in zip(psnr, sharpness, strict=True)
    ]
    return Finding(
        f"pix2pix of 64 pixels, PSNR and gradient energy over the targets': {', '.join(parts)}",
        seeds_of(psnr[0]["curves"]),
    )


def pix2pix_arm(arm: str) -> str:
    """Name an arm by what differs from pix2pix's recipe."""
    names = {
        "translation.adversarial=0.0": "L1 alone",
        "translation.l1=0.0": "game alone",
        "receptive_field=1,": "patches of 1 pixel",
        "receptive_field=16": "of 16",
        "objective=least_squares": "least squares",
        "objective=relativistic_paired": "relativistic, R1, R2",
    }
    return next((name for part, name in names.items() if part in arm), "pix2pix")


def health(content: Any) -> Finding:
    """What benchmarks/health_bench.py counted."""
    kinds = {
        "recipes": "recipes as they are",
        "failed": "changed runs that failed",
        "came_through": "changed runs that did not",
    }
    parts = [f"{content[f'{kind}_with_verdict']} of {content[kind]} {what}" for kind, what in kinds.items()]
    return Finding(
        f"GANs with a verdict of the health monitor: {'; '.join(parts)} (docs/health.md says how they were chosen)",
        seeds_of(r["seed"] for r in content["runs"]),
    )


FINDINGS: dict[str, Callable[[Any], Finding]] = {
    "vit_fashion_mnist": sweep("Fashion-MNIST test accuracy"),
    "vit_resolution": vit_resolution,
    "fashion_recipe": sweep("on 5,000 training images left out, after 3 epochs"),
    "fashion_shift": sweep("the same, after 15 epochs"),
    "dcgan_mnist_recipe": dcgan_mnist_recipe,
    "cdcgan_mnist": label_agreement,
    "cdcgan_batchnorm_mnist": label_agreement,
    "stacked_mnist_games": modes("Stacked MNIST, of 1,000", "reverse_kl", lambda kl: f"KL {kl:.3f}"),
    "ring2d_games": modes("eight Gaussians", "near", lambda near: f"{100 * near:.1f} % of samples within 3 sigma"),
    "health": health,
    "cifar_gans": cifar_gans,
    "sr_edsr_x2": partial(super_resolution, scale=2),
    "sr_edsr_x4": partial(super_resolution, scale=4),
    "photo_editing": photo_editing,
    "pix2pix_losses": pix2pix_losses,
    "train_step": train_step,
    "gan_recipes": gan_recipes,
    "image_to_image_step": image_to_image_step,
    "vit_step": vit_step,
    "lm_step": lm_step,
    "lm_recipe": lm_recipe,
    "lm_context": lm_context,
    "masked_patches_labels": labels("Fashion-MNIST at equal total time"),
    "masked_patches_step": masked_patches_step,
    "trec_labels": labels("TREC's test questions"),
    "sst2_labels": labels("SST-2's test sentences"),
    "faults": faults,
    "scaling": scaling,
}


def seeds_of(seeds: Any) -> str:
    """'0, 1, 2'."""
    return ", ".join(sorted({str(seed) for seed in seeds}))


def read(name: str) -> Any:
    """Read results/NAME.json, or every file of the folder results/NAME."""
    folder = RESULTS / name
    if folder.is_dir():
        return {path.stem: read_json(path) for path in folder.iterdir()}
    return read_json(folder.with_suffix(".json"))


def table() -> str:
    """The table, one row per file."""
    provenance = read_json(RESULTS / "provenance.json")
    lines = ["| figure | seeds | hardware | commit | command |", "| --- | --- | --- | --- | --- |"]
    for name, find in FINDINGS.items():
        content, told = read(name), provenance[name]
        own = content if isinstance(content, dict) else {}
        if (RESULTS / name).is_dir():  # of cards, each of which says its own commit: the same
            own = next(iter(content.values()))
        finding = find(content)
        environment = own.get("environment", {})
        measured = f"{environment['cores']} cores of an {environment['processor']}" if environment else UNKNOWN
        commit = f"(`{told['brought_by'][:7]}`)" if "commit" not in own else f"`{own['commit'][:7]}`"
        commit += " with changes" if own.get("commit", "").endswith("+changes") else ""
        commands = own.get("commands") or told.get("commands") or [UNKNOWN]
        cells = [
            f"{finding.figure} ([{name}](results/{name if (RESULTS / name).is_dir() else f'{name}.json'}))",
            finding.seeds,
            told.get("hardware", measured),
            commit,
            "<br>".join(f"`{command}`" for command in commands),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Write the table between its marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=path_flag, default=RESULTS.parent / "README.md")
    docs = parser.parse_args().docs
    before, begin, rest = docs.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    write_atomically(docs, "".join([before, begin, table(), end, after]).encode())


if __name__ == "__main__":
    with reported():
        main()
