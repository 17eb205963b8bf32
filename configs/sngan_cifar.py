"""SNGAN's ResNet on CIFAR-10 at 32 pixels: spectral normalisation and the hinge.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/sngan_cifar.py

Source: Miyato et al. 2018 (arXiv:1802.05957), by pfnet-research/sngan_projection (sn_cifar10_unconditional.yml): every
    matrix of the discriminator normalised by one power iteration, the sum over pixels, 64 images an update, five
    updates for one of the generator with 128 fakes, Adam 2e-4 (0, 0.9), falling linearly to 0 over 50,000 updates of
    the generator from the first one on. 4,276,739 and 1,053,824 parameters. Without labels: what benchmarks call SNGAN
    is often sngan_projection_cifar.py.
Deviations: one power iteration an update rather than one a pass; an averaged generator.
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
    for player in ("generator", "discriminator"):
        config[f"{player}_optimizer"].update(momentum=0.0, beta2=0.9)
    config.gan.schedules = "; ".join(
        f"{player}_optimizer.learning_rate = 0: 2e-4, 100%: 0 linear" for player in ("generator", "discriminator")
    )
    config.log.samples_every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
