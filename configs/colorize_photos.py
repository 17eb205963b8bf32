"""Colorization: the a and b of Lab from L, which stays as it is.

    python train.py --config=configs/colorize_photos.py --config.data.path=photos --workdir=runs/colorize
    python scripts/translate.py --workdir=runs/colorize --in=photo.jpg --out=coloured.png

Source: the U-Net, L1 loss and Adam 2e-4 (0.5, 0.999) of pix2pix (Isola et al. 2017, arXiv:1611.07004), without its
    game; the colour space is that of Zhang et al. 2016 (arXiv:1603.08511), a and b over 110.
Deviations: 128 pixels, width 32, batch 4, instance normalisation; the generator starts at grey; half of the steps at
    one rate, half falling linearly to 0. No discriminator: with 900 photographs each weight of the game that was tried
    made held-out colours worse than none (docs/image_to_image.md).
Reached here: the 100 held-out photographs, by scripts/translate.py --degrade: PSNR 20.88 dB, SSIM 0.885; grey 19.91 and
    0.879. Seen: sepia, a little stronger on what is dark and textured, skies lighter; nothing has a colour of its own.
    Seed 0, 19 minutes on one core of an AMD EPYC shared with other programs, jax 0.10.2.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("image_to_image")
    config.duration = "3000 steps"
    config.data.update(source="folder", split="train[:90%]", image_size=143, channels=3, batch_size=4, flip=True)
    config.translation.update(degradation="grey", patch=128)
    config.translation.adversarial = 0.0
    config.translation.schedules = "generator_optimizer.learning_rate = 0: 2e-4, 50%: 2e-4, 100%: 0 linear"
    config.generator.update(width=32, residual=True)
    config.eval.split = "train[90%:]"
    config.eval.every = "1000 steps"
    config.log.samples_every = "500 steps"
    config.checkpoint.every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
