"""Transformers against each other on CIFAR-10: this project's own blocks with rotary positions, in pixel space.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/vitgan_cifar.py

Source: the idea and sizes of ViTGAN (Lee et al. 2021, arXiv:2107.04589: patches of 4 pixels, 384 channels, Adam (0,
    0.99), DiffAugment, batch 128) with the game of R3GAN (Huang et al. 2025, arXiv:2501.05441: relativistic pairs, R1
    and R2), whose exact penalties dot-product attention withstands.
Deviations: from ViTGAN, all that models/vit_gan.py lists; no spectral normalisation and no balanced consistency loss,
    for which the penalties stand; rate 2e-4 rather than 2e-3.
Reached here: not run to its end here.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("gan")
    config.duration = "100M images"
    config.data.update(source="tfds", name="cifar10", image_size=32, channels=3, batch_size=128, flip=True)
    config.gan.objective = "relativistic_paired"
    config.gan.r1 = 0.5
    config.gan.r2 = 0.5
    config.gan.augment = "diffaugment"
    for player in (config.generator, config.discriminator):
        player.update(architecture="vit", width=384, depth=4, heads=6, patch_size=4)
    config.generator.latent_size = 128
    for player in ("generator", "discriminator"):
        config[f"{player}_optimizer"].update(momentum=0.0, beta2=0.99)
    config.log.samples_every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
