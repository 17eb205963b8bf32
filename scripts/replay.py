"""Repeat a failed step from the last checkpoint before it, and report where values stop being finite.

    python scripts/replay.py --workdir=RUN --step=N

Nothing in the run's folder is changed. Batches and noise are functions of (seed, step), so step N is
reproduced. All its losses and gradients are listed; then jax's NaN check names the operation.
"""

import argparse

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from gormley_vision.config import run_config
    from gormley_vision.files import path_flag


def main() -> None:
    """Restore, run the steps, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=path_flag, help="the run's folder")
    parser.add_argument("--step", required=True, type=int, help="the step that failed")
    options = parser.parse_args()
    config = run_config(options.workdir)
    if options.step < 1:
        raise UserError(f"--step={options.step}: the first step is 1")
    import jax
    import numpy as np

    from gormley_vision import experiment
    from gormley_vision.run import start_jax
    from gormley_vision.training.loop import Step
    from gormley_vision.training.start import prepare

    start_jax()
    batches = experiment.make_batches(config)
    task = experiment.make_task(config, batches.description)
    run = prepare(task, batches, config, options.workdir, at=options.step - 1)
    if options.step > run.plan.total:
        raise UserError(f"--step={options.step} is not a step of this run: its last is {run.plan.total}")
    compiled = Step(task, batches.fetch, run.state_shardings, run.shardings)
    state, start = run.state, int(run.state.step)
    print(f"replaying steps {start + 1} to {options.step}")
    for step in range(start, options.step):
        batch = jax.device_put(batches.read(step), run.shardings.batch)
        if step == options.step - 1:
            before = jax.tree.map(np.array, state)  # a copy: the step reuses the state's memory
        state, metrics, finite = compiled(state, run.resident, batch, run.key)
    for name, value in metrics.items():
        print(f"  {name} = {float(value)}")
    flags = np.asarray(finite)
    for name, ok in zip(compiled.checks, flags, strict=True):
        print(f"  {'finite    ' if ok else 'NOT FINITE'} {name}")
    if flags.all():
        print(f"step {options.step} is finite here")
        return
    with jax.debug_nans(True), jax.debug_infs(True):
        try:
            examples = batches.fetch(run.resident, batch)
            task.train_step(jax.tree.map(jax.numpy.asarray, before), examples, run.key)
        except FloatingPointError as error:
            print(f"first operation with a NaN or infinity: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    with reported():
        main()
