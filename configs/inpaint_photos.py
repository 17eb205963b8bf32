"""Inpainting: photographs with brush strokes in them, which are filled again.

    python train.py --config=configs/inpaint_photos.py --config.data.path=photos --workdir=runs/inpaint
    python scripts/translate.py --workdir=runs/inpaint --in=photo.jpg --mask=hole.png --out=filled.png

Source: pix2pix's game (Isola et al. 2017, arXiv:1611.07004): U-Net, PatchGAN, cross-entropy + 100 L1, Adam 2e-4 (0.5,
    0.999); the masks are those of Palette (Saharia et al. 2021, arXiv:2111.05826), by Janspiry's code.
Deviations: 128 pixels, width 32, batch 4, instance normalisation, a constant rate.
Reached here: not run to its end here.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("image_to_image")
    config.duration = "10000 steps"
    config.data.update(source="folder", split="train[:90%]", image_size=143, channels=3, batch_size=4, flip=True)
    config.translation.update(degradation="strokes", patch=128)
    config.generator.width = 32
    config.eval.split = "train[90%:]"
    config.eval.every = "1000 steps"
    config.log.samples_every = "500 steps"
    config.checkpoint.every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
