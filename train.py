"""Train any model of the repository from its config file.

    python train.py --config=configs/dcgan_mnist.py [--workdir=RUN] [--config.data.batch_size=128 ...]

The same command continues a run that was stopped. `--config=FILE:smoke` shrinks any experiment to seconds.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from gormley_vision.command_line import check_flags, settle, split_spec
from gormley_vision.config import describe
from gormley_vision.errors import reported
from gormley_vision.files import user_path

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment: configs/NAME.py or configs/NAME.py:smoke.")
_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder; runs/<config name> if not given.")
_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the resolved config, a line on each key, and end.")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0; '' where a cluster's variables tell.")
_PROCESSES = flags.DEFINE_integer("processes", 1, "Processes of this run, each on its own devices.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", 0, "Which of them this is.", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer("heartbeat", 100, "Seconds until a silent process ends the others.", lower_bound=1)
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profiler trace of this process to the run's folder.")


def main(argv: list[str]) -> int:
    """Parse, check, train."""
    with reported():
        settle(_CONFIG.value, config_flags.get_override_values(flags.FLAGS["config"]), argv[1:])
        path, arg = split_spec(config_flags.get_config_filename(flags.FLAGS["config"]))
        workdir = (
            user_path(_WORKDIR.value) if _WORKDIR.value else Path("runs", f"{path.stem}_{arg}" if arg else path.stem)
        )
    if _PRINT_CONFIG.value:
        print(describe(_CONFIG.value))
        return 0
    with reported():
        from gormley_vision.run import run  # jax and its friends: seconds, so after the checks
        from gormley_vision.training.hosts import join

        join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _HEARTBEAT.value)
        return run(_CONFIG.value.to_dict(), workdir, profile=_PROFILE.value)


if __name__ == "__main__":
    with reported():
        words = check_flags(sys.argv[1:])
    app.run(main, argv=[sys.argv[0], *words])
