"""WGAN with clipped weights, on 5,000 real MNIST digits.

    python train.py --config=configs/wgan_mnist.py

Source: Arjovsky et al. 2017 (arXiv:1701.07875), Algorithm 1: five updates of the discriminator for one of the
    generator, all its parameters cut off at +-0.01, RMSProp at 5e-5, batch 64.
Deviations: DCGAN's nets at 28 pixels with half the filters; an averaged generator. Their code's 100 updates of the
    discriminator in each of the first 25 steps are left out.
Reached here: strokes like those of digits after 5,000 steps, about half of them legible, and no verdict of the health
    monitor; seed 0, 8 minutes of one core of an AMD EPYC, other programs running. Clipped weights learn slowly.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "5000 steps"
    config.data.batch_size = 64
    config.gan.objective = "wasserstein"
    config.gan.clip_weights = 0.01
    config.gan.discriminator_steps = 5
    config.generator.width = 32
    config.discriminator.width = 32
    for optimizer in (config.generator_optimizer, config.discriminator_optimizer):
        optimizer.name = "rmsprop"
        optimizer.learning_rate = 5e-5
        optimizer.beta2 = 0.99
    return shrink(config) if check_arg(arg) else config
