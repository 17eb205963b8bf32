"""PLACEHOLDER"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("gan")
    config.duration = "100 epochs"
    config.data.source = "tfds"
    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.channels = 3
    config.data.batch_size = 128
    config.data.flip = True
    config.discriminator.architecture = "patchgan"
    config.discriminator.receptive_field = 16
    return shrink(config) if check_arg(arg) else config
