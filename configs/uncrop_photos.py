"""Uncropping: photographs of which one half is missing, at any side.

    python train.py --config=configs/uncrop_photos.py --config.data.path=photos --workdir=runs/uncrop
    python scripts/translate.py --workdir=runs/uncrop --in=photo.jpg --extend=0,64,0,64 --out=wide.png

Source: pix2pix's nets and game (Isola et al. 2017, arXiv:1611.07004): U-Net, PatchGAN, cross-entropy, L1, Adam 2e-4
    (0.5, 0.999). L1 counts 1,000 times the game, as in context encoders (Pathak et al. 2016, arXiv:1604.07379), and not
    100 times; the halves are those of Palette (Saharia et al. 2021, arXiv:2111.05826).
Deviations: 128 pixels, 32 channels in both nets, batch 4, instance normalisation; the generator adds to its input, and
    starts at the missing half filled with the mean colour; half of the steps at one rate, half falling linearly to 0.
Reached here: the 100 held-out photographs, by scripts/translate.py --degrade: PSNR 16.62 dB, SSIM 0.641; halves filled
    with the mean colour 15.17 and 0.652, with the nearest known pixel 15.03 and 0.631. Seen: horizons, skies and
    grounds go on in their colours; no objects, and a coarse grid of blurs. Seed 0, 23 minutes on one core of an AMD
    EPYC, jax 0.10.2.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("image_to_image")
    config.duration = "3000 steps"
    config.data.update(source="folder", split="train[:90%]", image_size=143, channels=3, batch_size=4, flip=True)
    config.translation.update(degradation="side", patch=128)
    config.translation.adversarial = 0.1
    config.translation.schedules = "; ".join(
        f"{player}_optimizer.learning_rate = 0: 2e-4, 50%: 2e-4, 100%: 0 linear"
        for player in ("generator", "discriminator")
    )
    config.generator.update(width=32, residual=True)
    config.discriminator.width = 32
    config.eval.split = "train[90%:]"
    config.eval.every = "1000 steps"
    config.log.samples_every = "500 steps"
    config.checkpoint.every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
