"""Estimate ViT-L/16, H/14 and 22B on 8 to 1,024 chips of TPU v5p: each step is compiled, none is run.

    pip install -e ".[plan,dev]"
    python scripts/draw_scaling.py [--out=results/scaling.json] [--picture=docs/images/scaling.png]

Weak scaling: the number of images per chip is fixed. Takes most of an hour on 2 cores; results are saved in --out, and
their steps are not compiled again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from gormley_vision.errors import reported

with reported():  # importing takes a moment
    from gormley_vision.command_line import load_config_file
    from gormley_vision.files import path_flag, read_json, write_json

TOPOLOGIES = {8: "2x2x2", 32: "2x4x4", 128: "4x4x8", 512: "8x8x8", 1024: "8x8x16"}
CLASSES, EPOCH_IMAGES = 1000, 1281167  # ImageNet-1k
# Name: config, images per chip, and the most chips over which the state is sharded.
NETS = {
    "ViT-L/16": ("configs/vit_l16_imagenet.py", 32, 8),
    "ViT-H/14": ("configs/vit_h14_imagenet.py", 32, 8),
    "ViT-22B": ("configs/vit_22b.py", 4, 64),
}


def main() -> None:
    """Compile the missing steps, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=path_flag, default=Path("results/scaling.json"), help="JSON file of results")
    parser.add_argument("--picture", type=path_flag, default=Path("docs/images/scaling.png"), help="the figure")
    options = parser.parse_args()
    points = read_json(options.out) if options.out.exists() else []
    for net, chips in [(net, chips) for chips in TOPOLOGIES for net in NETS]:
        if not any((point["net"], point["chips"]) == (net, chips) for point in points):
            began = time.monotonic()
            points.append(compiled(net, chips))
            write_json(options.out, points)
            left = len(NETS) * len(TOPOLOGIES) - len(points)
            print(f"{net} on {chips} chips: {time.monotonic() - began:.0f} s to compile; {left} left", flush=True)
    for point in points:
        print(row(point))
    draw(points, options.picture)


def compiled(net: str, chips: int) -> dict[str, Any]:
    """Compile one point of the figure."""
    from gormley_vision.experiment import described
    from gormley_vision.planning import topology
    from gormley_vision.planning.plan import plan, with_overrides

    path, images, most = NETS[net]
    data = described(load_config_file(path), tuple(map(str, range(CLASSES))), EPOCH_IMAGES)
    devices = topology.devices_of(f"v5p:{TOPOLOGIES[chips]}")
    # Where `fsdp` is all of a slice, the compiler gathers by sums of zero-filled arrays: only if nothing else fits.
    for fsdp in (fsdp_of(TOPOLOGIES[chips], min(most, chips // 2)), fsdp_of(TOPOLOGIES[chips], chips)):
        split = {"mesh.data": 0, "mesh.fsdp": fsdp, "data.batch_size": images * chips}
        config = with_overrides(load_config_file(path).to_dict(), split)
        report = plan(config, devices, topology.chip_of(devices[0]), data)
        if report["fits"]:
            break
    return {"net": net, "chips": chips, "topology": f"v5p:{TOPOLOGIES[chips]}"} | {
        key: value for key, value in report.items() if key not in ("collectives", "error")
    }


def fsdp_of(topology: str, most: int) -> int:
    """Return the largest product of the topology's own axes up to `most`: a mesh's axis is made of such."""
    products = {1}
    for side in map(int, topology.split("x")):
        products |= {side * product for product in products}
    return max(product for product in products if product <= most)


def row(point: dict[str, Any]) -> str:
    """Return a line of the table in docs/scaling.md."""
    mesh = "x".join(str(size) for size in point["mesh"].values())
    cells = [point["net"], point["topology"], str(point["chips"]), mesh, f"{point['images']:,}"]
    cells.append(f"{point['needed'] / 2**30:.1f} of {point['capacity'] / 2**30:.1f}")
    if point["fits"]:
        step = point["step"]
        cells += [f"{1e3 * step[f'seconds_of_{part}']:.0f}" for part in ("products", "memory", "links")]
        cells += [f"{1e3 * step['seconds_by_the_compiler']:.0f}", f"{step['images_per_second']:,.0f}"]
        cells.append(f"{step['share_of_peak']:.0%}")
    return "| " + " | ".join(cells if point["fits"] else [*cells, "does not fit", "", "", "", "", ""]) + " |"


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Draw images per second over chips, with perfect scaling from the first point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for net in NETS:
        own = [point for point in points if point["net"] == net and point["fits"]]
        chips = [point["chips"] for point in own]
        rates = [point["step"]["images_per_second"] for point in own]
        (line,) = axes.plot(chips, rates, marker="o", label=net)
        axes.plot(chips, [rates[0] * n / chips[0] for n in chips], ":", color=line.get_color())
    axes.set(xscale="log", yscale="log", xlabel="chips of TPU v5p", ylabel="images per second")
    axes.set_xticks(list(TOPOLOGIES), [str(n) for n in TOPOLOGIES])
    axes.set_title("Estimated: compiled, not run. Dotted: perfect scaling")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    with reported():
        main()
