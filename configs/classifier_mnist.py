"""PLACEHOLDER"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "5 epochs"
    config.checkpoint.every = "1 epochs"
    return shrink(config) if check_arg(arg) else config
