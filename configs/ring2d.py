"""Eight Gaussians on a ring: vectors rather than images, whose modes can be counted.

    python train.py --config=configs/ring2d.py
    python scripts/mode_coverage.py --workdir=runs/ring2d

Source: the data of Metz et al. 2016 (arXiv:1611.02163, section 3.1); RpGAN + R1 + R2 of Huang et al. 2025
    (arXiv:2501.05441).
Deviations: dense nets of this project, three layers of 128.
Reached here: TODO
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "6000 steps"
    config.data.source = "ring"
    config.data.batch_size = 256
    config.gan.example = "vector"
    config.gan.objective = "relativistic_paired"
    config.gan.r1 = 0.1
    config.gan.r2 = 0.1
    for player in (config.generator, config.discriminator):
        player.architecture = "dense"
        player.width = 128
        player.depth = 3
    config.generator.latent_size = 16
    for optimizer in (config.generator_optimizer, config.discriminator_optimizer):
        optimizer.learning_rate = 1e-3
        optimizer.momentum = 0.0
        optimizer.beta2 = 0.99
    config.log.samples = 2000
    config.log.every = "100 steps"
    config.log.samples_every = "500 steps"
    config.checkpoint.every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
