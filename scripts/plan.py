"""Check whether a config fits on a TPU pod before renting it, and estimate the cost of a step there.

    pip install -e ".[plan]"
    python scripts/plan.py --config=configs/vit_s16_imagenet.py --topology=v5e:4x4 [--config.mesh.fsdp=4 ...]
    python scripts/plan.py ... --batch_sizes=1024,2048,4096 --meshes=16x1x1,1x16x1    # a table of which fit
    python scripts/plan.py --config=configs/vit_mnist.py                              # this machine

The training step is compiled for the topology by the TPU's own compiler, and not run: memory is the compiler's
allocation; times are lower bounds. --price (per chip and hour) gives the cost of an epoch; --out writes JSON.
"""

from collections.abc import Callable
from typing import Any

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from absl import flags

    from gormley_vision import command_line
    from gormley_vision.config import validate
    from gormley_vision.files import refuse_unwritable, user_path, write_json

flags.DEFINE_string("config", None, "The experiment's config file, configs/NAME.py; --config.KEY=VALUE sets a key.")
_TOPOLOGY = flags.DEFINE_string(
    "topology", "here", "The devices: 'here', or a TPU: v5e:4x4, v4:4x4x4, v5p:4x4x8, tpu7x:2x2x2 ..."
)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", [], "Compare these batch sizes.")
_MESHES = flags.DEFINE_list("meshes", [], "Compare these meshes, written DATAxFSDPxTENSOR.")
_CLASSES = flags.DEFINE_integer("classes", 0, "Number of classes, if the data set is not a known one.", lower_bound=0)
_EPOCH_IMAGES = flags.DEFINE_integer(
    "epoch_images", 0, "Number of training images, if the data set is not a known one.", lower_bound=0
)
_PRICE = flags.DEFINE_float(
    "price", 0.0, "Price of a chip per hour, in any currency; see cloud.google.com/tpu/pricing.", lower_bound=0.0
)
_EXPLAIN = flags.DEFINE_bool("explain", False, "Also print the ten costliest operations, by the compiler's estimate.")
_OUT = flags.DEFINE_string("out", "", "Write the report to this JSON file.")


def main(chosen: command_line.Experiment) -> int:
    """Compile the steps and print the reports."""
    config = chosen.config.to_dict()
    variants = list(variants_of(config))
    if _OUT.value:
        refuse_unwritable(user_path(_OUT.value))
    from gormley_vision import logs  # imports jax, which takes seconds, so after the checks
    from gormley_vision.planning.plan import with_overrides
    from gormley_vision.planning.reports import reporter, with_advice
    from gormley_vision.training.progress import console_handler

    logs.to_console(console_handler())
    validate(config)
    report_of = reporter(config, _TOPOLOGY.value, _CLASSES.value, _EPOCH_IMAGES.value)
    if len(variants) > 1:
        reports = table(config, variants, report_of)
    else:
        reports = [with_advice(with_overrides(config, variants[0]), report_of)]
        if reports[0]["fits"]:
            describe(reports[0])
        else:
            describe_remedies(reports[0])
    if _OUT.value:
        write_json(user_path(_OUT.value), {"topology": _TOPOLOGY.value, "config": config, "reports": reports})
        print(f"wrote {_OUT.value}")
    return 0 if any(report["fits"] for report in reports) else 1


def variants_of(config: dict[str, Any]):
    """Yield the overrides to compare: each batch size on each mesh."""
    if wrong := [text for text in _BATCH_SIZES.value if not (text.isdigit() and int(text))]:
        raise UserError(f"--batch_sizes={','.join(wrong)}: write integers above 0, as in 1024,2048")
    for text in _MESHES.value or [""]:
        sizes = text.split("x") if text else []
        if text and not (len(sizes) == 3 and all(size.isdigit() for size in sizes)):
            raise UserError(f"--meshes={text}: write DATAxFSDPxTENSOR, as in 4x4x1")
        mesh = {f"mesh.{axis}": int(n) for axis, n in zip(("data", "fsdp", "tensor"), sizes, strict=False)}
        for batch in _BATCH_SIZES.value or [config["data"]["batch_size"]]:
            yield {"data.batch_size": int(batch), **mesh}


def describe_remedies(report: dict[str, Any]) -> None:
    """Print how much a config that does not fit needs, and what would help."""
    from gormley_vision.planning.plan import GIB

    print(f"does not fit: {report['needed'] / GIB:.2f} of {report['capacity'] / GIB:.2f} GiB on each device")
    for remedy in report["remedies"]:
        words = " ".join(f"--config.{key}={value}" for key, value in remedy["overrides"].items())
        print(f"  {remedy['needed'] / GIB:8.2f} GiB, {'fits' if remedy['fits'] else 'does not fit'}: {words}")


def describe(report: dict[str, Any]) -> None:
    """Print a report that fits."""
    from gormley_vision.planning.plan import GIB
    from gormley_vision.planning.reports import summed

    mesh = " x ".join(f"{axis} {size}" for axis, size in report["mesh"].items())
    print(f"{report['devices']} devices ({report['chips']} chips) of {report['device']}: {mesh}")
    print(f"\nmemory of a device: {report['needed'] / GIB:.2f} of {report['capacity'] / GIB:.2f} GiB")
    for kind, size in report["memory"].items():
        print(f"  {kind:<27} {size / 2**20:14,.1f} MiB")
    step = report["step"]
    print(f"\na step of {report['images']:,} examples, per device")
    for part, key, unit in (
        ("products", "flops", "GFLOP"),
        ("memory", "hbm_bytes", "GB"),
        ("links", "wire_bytes", "GB"),
    ):
        print(f"  {part:<10} {step[key] / 1e9:16,.3f} {unit:<6} at least {1e3 * step[f'seconds_of_{part}']:12,.3f} ms")
    if step["seconds_by_the_compiler"]:
        print(
            f"  by the compiler's own estimate, without links {1e3 * step['seconds_by_the_compiler']:9,.2f} ms", end=""
        )
        print(f", {step['share_of_copies']:.1%} of it copies")
        if step["kernels"]:
            gflop = step["kernel_flops"] / 1e9
            print(f"  not in that estimate: {step['kernels']:.0f} calls of custom kernels, {gflop:,.0f} GFLOP")
    if report["unknown_loops"]:
        print(f"  {report['unknown_loops']} loops depend on data: each is counted once")
    for collective in summed(report["collectives"]):
        print("  {kind}: {times:.0f} per step, {wire_bytes:.3f} GB".format(**collective))
    epoch = report["epoch_images"] / step["images_per_second"]
    print(f"\nestimate: at most {step['images_per_second']:,.0f} examples/s: an epoch in {epoch / 60:.1f} min", end="")
    print(f", {epoch / 3600 * report['chips'] * _PRICE.value:.2f} by --price" if _PRICE.value else "")
    print(f"at most {step['share_of_peak']:.0%} of the chips' peak does the model's own products")
    if _EXPLAIN.value:
        print("\nthe costliest operations")
        for operation in report["operations"]:
            print(f"  {1e3 * operation['seconds']:9.2f} ms  {operation['kind']:<10} {operation['place']}")


def table(config: dict[str, Any], variants: list[dict[str, Any]], report_of: Callable) -> list[dict[str, Any]]:
    """Print and return a report for each variant."""
    from gormley_vision.planning.plan import GIB, with_overrides

    reports = []
    print(f"{'batch':>8} {'mesh':>12} {'GiB per device':>14}  fits  {'examples/s, estimated':>21}")
    for overrides in variants:
        report = report_of(with_overrides(config, overrides))
        reports.append(report | {"overrides": overrides})
        mesh = "x".join(str(size) for size in report["mesh"].values())
        rate = f"{report['step']['images_per_second']:,.0f}" if "step" in report else ""
        fits = "yes" if report["fits"] else "no"
        print(f"{overrides['data.batch_size']:>8} {mesh:>12} {report['needed'] / GIB:>14.2f}  {fits:<4}  {rate:>21}")
    return reports


if __name__ == "__main__":
    with reported():
        command_line.run(main)
