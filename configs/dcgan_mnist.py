"""DCGAN on 5,000 real MNIST digits at 28 pixels: the README's first command.

    python train.py --config=configs/dcgan_mnist.py

PLACEHOLDER
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "30 epochs"
    config.data.batch_size = 32
    return shrink(config) if check_arg(arg) else config
