"""Super-resolution by 2: a small EDSR, trained on anybody's photographs.

    python train.py --config=configs/sr_edsr_x2.py --config.data.path=photos --workdir=runs/sr
    python scripts/translate.py --workdir=runs/sr --in=Set5 --degrade --out=enlarged

Source: Lim et al. 2017 (EDSR, arXiv:1707.02921): L1, flips and turns, batch 16, Adam.
Deviations: 4 blocks of 32 channels (121,987 parameters), 32-pixel inputs, a rate of 1e-3 that falls to 0 by half a
    cosine, an average of the weights; the net adds to bicubic interpolation, and starts as it.
Reached here: on 900 photographs (160-pixel squares of ImageNet's classes), seed 0: PSNR and SSIM of luma 37.13 dB and
    0.9574 on Set5 (bicubic 33.68, 0.9305), 32.90 and 0.9115 on Set14 (30.33, 0.8700), 31.70 and 0.8935 on BSD100
    (29.56, 0.8436), by the command above: results/sr_edsr_x2.json. Half an hour of processor time, 62 minutes by the
    clock on 2 cores of an AMD EPYC with many other programs running, jax 0.10.2. Half of the steps: 37.12.
    By 4 (--config.translation.scale=4 --config.translation.patch=128): 31.09, 0.8779; 27.97, 0.7654; 27.15, 0.7207.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("image_to_image")
    config.duration = "8000 steps"
    config.data.update(source="folder", split="train[:90%]", image_size=160, channels=3, batch_size=16, flip=True)
    config.translation.update(degradation="downscale", scale=2, patch=64, turns=True, adversarial=0.0, l1=1.0)
    config.translation.ema_half_life = "2000 images"
    config.translation.schedules = "generator_optimizer.learning_rate = 0: 1e-3, 100%: 0 cosine"
    config.generator.update(architecture="edsr", width=32, blocks=4)
    config.generator_optimizer.update(learning_rate=1e-3, momentum=0.9)
    config.eval.split = "train[90%:]"
    config.eval.every = "1000 steps"
    config.log.samples_every = "1000 steps"
    config.checkpoint.every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
