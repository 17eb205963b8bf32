"""PLACEHOLDER"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "30 epochs"
    config.data.batch_size = 32
    config.gan.conditional = True
    config.log.samples = 100
    return shrink(config) if check_arg(arg) else config
