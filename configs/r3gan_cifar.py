"""R3GAN on CIFAR-10 at 32 pixels, with labels: a relativistic game with R1 and R2, and nets without normalisation.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/r3gan_cifar.py

Source: Huang et al. 2025 (arXiv:2501.05441), config E, preset CIFAR10 of brownvc/R3GAN: four stages of two blocks with
    768 channels (20,781,952 and 21,280,512 parameters), batch 512, Adam (0, beta2), and half a cosine over 20 million
    images, constant afterwards: rate 2e-4 to 5e-5, beta2 0.9 to 0.99, R1 and R2 0.05 to 0.005 by the gradient of the
    un-augmented image, the augmentation's probability 0 to 0.55, the average's half-life 0 to 5 million images. The
    authors count one batch of 512 a step; a step reads two, one for each player, and counts both: hence 40M and 10M.
Deviations: bilinear interpolation in the augmentation; bfloat16 is the whole net's choice (compute_dtype), where theirs
    is that of the three largest stages.
Reached here: not run to its end here: the authors trained on 8 GPUs.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("gan")
    config.duration = "400M images"
    config.data.update(source="tfds", name="cifar10", image_size=32, channels=3, batch_size=512, flip=True)
    config.gan.conditional = True
    config.gan.objective = "relativistic_paired"
    config.gan.augment = "r3gan"
    config.gan.ema_ramp = 1.0
    config.generator.update(architecture="r3gan", width=768, depth=2, latent_size=64)
    config.discriminator.update(architecture="r3gan", width=768, depth=2)
    for player in ("generator", "discriminator"):
        config[f"{player}_optimizer"].momentum = 0.0
    both = ("generator_optimizer", "discriminator_optimizer")
    numbers = {f"{section}.learning_rate": ("2e-4", "5e-5") for section in both}
    numbers |= {f"{section}.beta2": ("0.9", "0.99") for section in both}
    numbers |= {f"gan.{kind}": ("0.05", "0.005") for kind in ("r1", "r2")}
    numbers |= {"gan.augment_probability": ("0", "0.55"), "gan.ema_half_life": ("0", "10M")}
    config.gan.schedules = "; ".join(f"{key} = 0: {a}, 40M: {b} cosine" for key, (a, b) in numbers.items())
    config.log.samples = 100
    config.log.samples_every = "500 steps"
    config.checkpoint.every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
