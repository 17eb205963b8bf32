"""SNGAN with labels on CIFAR-10: conditional BatchNorm in the generator, projection in the discriminator.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/sngan_projection_cifar.py

Source: Miyato & Koyama 2018 (arXiv:1802.05637) on sngan_cifar.py's recipe (sn_cifar10_conditional.yml); the classes'
    vectors are normalised, too.
Deviations: those of sngan_cifar.py; fakes have the labels of the real images beside them, not uniform ones.
Reached here: not run to its end here.
"""

from configs import sngan_cifar
from gormley_vision.config import check_arg, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = sngan_cifar.get_config()
    config.gan.conditional = True
    config.generator.conditioning = "batch_norm"
    config.discriminator.conditioning = "projection"
    config.log.samples = 100
    return shrink(config) if check_arg(arg) else config
