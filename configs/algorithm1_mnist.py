"""PLACEHOLDER"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "30 epochs"
    config.data.batch_size = 32
    config.gan.discriminator_steps = 1
    config.gan.generator_loss = "saturating"
    for optimizer in (config.generator_optimizer, config.discriminator_optimizer):
        optimizer.name = "momentum_sgd"
        optimizer.momentum = 0.5
        optimizer.learning_rate = 0.05
    return shrink(config) if check_arg(arg) else config
