"""Train any model of the repository from its config file.

    python train.py --config=configs/dcgan_mnist.py [--workdir=RUN] [--config.data.batch_size=128 ...]

The same command continues a run that was stopped. `--config=FILE:smoke` shrinks any experiment to seconds.
"""

import re
from pathlib import Path

from gormley_vision.errors import UserError, protect_output, reported
from gormley_vision.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()

with reported():  # importing takes a moment
    from absl import flags

    from gormley_vision import command_line
    from gormley_vision.config import describe
    from gormley_vision.files import user_path
    from gormley_vision.signals import at_once

flags.DEFINE_string(
    "config",
    None,
    "The experiment's config file, configs/NAME.py or configs/NAME.py:smoke; --config.KEY=VALUE sets a key.",
)
_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder; the default is runs/<config name>.")
_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the resolved config, one line for each key, and exit.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    "",
    "HOST:PORT of process 0; '' if there is only one process, or if the cluster's environment variables give it.",
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 1, "The number of processes of this run, each on its own devices.", lower_bound=1
)
_PROCESS = flags.DEFINE_integer(
    "process", 0, "The number of this process, from 0 to --processes minus 1.", lower_bound=0
)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat", 100, "Seconds after which a process that stops responding ends the others.", lower_bound=1
)
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profiler trace of this process to the run's folder.")


def main(experiment: command_line.Experiment) -> int:
    """Check the other flags, then train."""
    workdir = user_path(_WORKDIR.value) if _WORKDIR.value else Path("runs", experiment.name)
    if _COORDINATOR.value and not re.fullmatch(r"[^\s:]+:[0-9]+|\[[0-9a-fA-F:]+\]:[0-9]+", _COORDINATOR.value):
        raise UserError(f"--coordinator={_COORDINATOR.value}: write HOST:PORT of process 0, as in 10.0.0.2:1234")
    if _PRINT_CONFIG.value:
        print(describe(experiment.config))
        return 0
    protect_output(product=False)  # a full disk for its output must not stop a run
    from gormley_vision.run import run  # imports jax, which takes seconds, so after the checks
    from gormley_vision.training.hosts import initialize

    initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _HEARTBEAT.value)
    with at_once():  # again: jax installs its own SIGTERM handler when joining other processes
        return run(experiment.config.to_dict(), workdir, profile=_PROFILE.value)


if __name__ == "__main__":
    with reported():
        command_line.run(main)
