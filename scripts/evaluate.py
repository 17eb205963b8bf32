"""Accuracy of a classification run over a whole split, at its own resolution or another.

    python scripts/evaluate.py --workdir=RUN [--split=test] [--image_size=42] [--rope_scaling=interpolate] [--step=N]
    python scripts/evaluate.py --workdir=RUN --data_path=photos --config.data.crop=none

Any key of the run's `data` section can be set, for data that lie elsewhere. Classes are matched by name: a data set
with some of the run's classes is evaluated on these, and one with others is refused. At another resolution images are
resized (data.resize_filter), learned positions too (--position_resize), and rotary ones go on past the trained grid as
they are, or by a rule. Prints one JSON line.
"""

import argparse

from gormley_vision.errors import reported
from gormley_vision.files import user_path


def main() -> None:
    """Restore, change the resolution, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=user_path, help="the run's folder")
    parser.add_argument("--step", type=int, help="checkpoint (default: the newest whole one)")
    parser.add_argument("--split", help="part of the data set (default: the run's eval.split)")
    parser.add_argument("--data_path", help="where the data lie now (default: where they lay in training)")
    parser.add_argument("--image_size", type=int, help="pixels (default: as trained)")
    parser.add_argument("--rope_scaling", default="none", choices=("none", "interpolate", "ntk"))
    parser.add_argument("--position_resize", default="google", choices=("google", "timm", "huggingface"))
    options, words = parser.parse_known_args()
    words += [f"--config.data.path={options.data_path}"] if options.data_path else []
    words += [f"--config.data.image_size={options.image_size}"] if options.image_size else []
    import dataclasses
    import json

    from gormley_vision import experiment
    from gormley_vision.command_line import override
    from gormley_vision.errors import UserError
    from gormley_vision.run import start_jax
    from gormley_vision.sampling import restore
    from gormley_vision.tasks.classification import Classification, resized_positions
    from gormley_vision.training.evaluation import Evaluation
    from gormley_vision.training.sharding import Shardings, make_mesh

    start_jax()
    run = restore(options.workdir, options.step)
    if not isinstance(run.task, Classification):
        raise UserError(f"a {run.config['task']} run has no accuracy")
    patch_size, trained = run.config["vit"]["patch_size"], run.config["data"]["image_size"]
    config = override(run.config, ["--config.data.placement=host", *words], "data")
    size = config["data"]["image_size"]
    if options.rope_scaling != "none":
        config["vit"] |= {"rope_scaling": options.rope_scaling, "trained_grid": trained // patch_size}
    experiment.check(config)
    split = options.split or config["eval"]["split"] or config["data"]["split"]
    batches = experiment.make_batches(config, split=split, class_names=run.class_names)
    scaled = {name: config["vit"][name] for name in ("rope_scaling", "trained_grid")}
    task = dataclasses.replace(run.task, classifier=run.task.classifier.clone(**scaled))
    params = dict(run.state.ema["params"])
    if "position_embedding" in params:
        old, new = ((side // patch_size,) * 2 for side in (trained, size))
        params["position_embedding"] = resized_positions(
            params["position_embedding"], old, new, options.position_resize
        )
    state = run.state.replace(ema={**run.state.ema, "params": params})
    one_device = make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, batches.batch_size)
    figures = Evaluation(task, batches, every=0)(state, Shardings(one_device, ()))
    assert figures is not None  # nothing asks it to stop
    accuracy, loss = figures["eval/accuracy"], figures["eval/loss"]
    result = {
        "accuracy": round(accuracy, 4),
        "loss": round(loss, 4),
        "images": batches.length,
        "classes": len(batches.classes_present() or run.class_names),
        "split": split,
        "image_size": size,
        "rope_scaling": options.rope_scaling,
        "position_resize": options.position_resize,
        "step": run.step,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    with reported():
        main()
