"""SNGAN with labels on CIFAR-10: conditional BatchNorm in the generator, projection in the discriminator.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/sngan_projection_cifar.py

Source: Miyato & Koyama 2018 (arXiv:1802.05637), sn_cifar10_conditional.yml, with the numbers of sngan_cifar.py; the
    classes' vectors are normalised, too.
Deviations: those of sngan_cifar.py; fakes have the labels of the real images beside them, not uniform ones.
Reached here: not run to its end here.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("gan")
    config.duration = "50000 steps"
    config.data.update(source="tfds", name="cifar10", image_size=32, channels=3, batch_size=64)
    config.gan.objective = "hinge"
    config.gan.discriminator_steps = 5
    config.gan.generator_factor = 2
    config.generator.update(architecture="resnet", width=256, latent_size=128)
    config.discriminator.update(architecture="resnet", width=128, spectral_norm=True)
    config.gan.conditional = True
    config.generator.conditioning = "batch_norm"
    config.discriminator.conditioning = "projection"
    for player in ("generator", "discriminator"):
        config[f"{player}_optimizer"].update(momentum=0.0, beta2=0.9)
    config.gan.schedules = "; ".join(
        f"{player}_optimizer.learning_rate = 0: 2e-4, 100%: 0 linear" for player in ("generator", "discriminator")
    )
    config.log.samples = 100
    config.log.samples_every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
