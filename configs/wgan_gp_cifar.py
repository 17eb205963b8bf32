"""WGAN-GP's ResNet on CIFAR-10 at 32 pixels.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/wgan_gp_cifar.py

Source: Gulrajani et al. 2017 (arXiv:1704.00028), their code's gan_cifar_resnet.py without labels: 64 images an update
    of the discriminator, five of these for one of the generator with 128 fakes, penalty 10 between real and fake, Adam
    2e-4 (0, 0.9), falling linearly to 0 over 100,000 updates of the generator; pixels with noise below one level.
    1,204,483 and 1,053,825 parameters.
Deviations: Glorot weights inside of blocks rather than He's; an averaged generator.
Reached here: not run to its end here.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("gan")
    config.duration = "100000 steps"
    config.data.update(source="tfds", name="cifar10", image_size=32, channels=3, batch_size=64)
    config.gan.objective = "wasserstein"
    config.gan.gradient_penalty = 10.0
    config.gan.discriminator_steps = 5
    config.gan.generator_factor = 2
    config.gan.dequantize = True
    config.generator.update(architecture="resnet", width=128, latent_size=128)
    config.discriminator.update(architecture="resnet", width=128, pooling="mean")
    for player in ("generator", "discriminator"):
        config[f"{player}_optimizer"].update(momentum=0.0, beta2=0.9)
    config.gan.schedules = "; ".join(
        f"{player}_optimizer.learning_rate = 0: 2e-4, 100%: 0 linear" for player in ("generator", "discriminator")
    )
    config.log.samples_every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
