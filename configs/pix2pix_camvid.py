"""pix2pix on CamVid: from label maps to street scenes.

    python train.py --config=configs/pix2pix_camvid.py --config.data.path=camvid --config.data.targets=camvid_labels

with photographs in `camvid/train` and `camvid/val`, and label maps of the same names in `camvid_labels/train` and
`camvid_labels/val`, whose `classes.txt` names the classes, one a line.

Source: Isola et al. 2017 (pix2pix, arXiv:1611.07004), by junyanz/pytorch-CycleGAN-and-pix2pix: U-Net, 70-pixel PatchGAN
    that sees the labels beside the image, cross-entropy + 100 L1, the discriminator's loss halved, Adam 2e-4 (0.5,
    0.999), batch 1, pictures squeezed to 286/256 of the size and cut out at random, mirrored; half of the epochs at one
    rate, half falling linearly to 0.
Deviations: 128 pixels, so 7 halvings (41.8 million parameters at width 64); instance normalisation, which is what
    BatchNorm is at batch 1 but for its scale and bias; labels enter as one number a class, not as colours.
Reached here: not run at full size. 60 of 200 epochs (--config.duration="60 epochs"), --config.generator.width=32 and
    --config.discriminator.width=32, seed 0, on the 233 test pictures at their own size (scripts/translate.py with
    --targets): PSNR 14.76 dB, SSIM 0.389, gradient energy 1.01 of the photographs' (eval/sharpness); the mean
    photograph has 13.41 dB, each class in its mean colour 14.55. Seen: streets in their light; walls, trees and kerbs
    with texture; cars are dark shapes, and marks on the road are invented. 54 minutes of one core of an AMD EPYC, other
    programs running, jax 0.10.2.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("image_to_image")
    config.duration = "200 epochs"
    config.data.update(source="folder", image_size=143, channels=3, crop="none", batch_size=1, flip=True)
    config.translation.update(reverse=True, patch=128)
    config.translation.schedules = "; ".join(
        f"{player}_optimizer.learning_rate = 0: 2e-4, 50%: 2e-4, 100%: 0 linear"
        for player in ("generator", "discriminator")
    )
    config.eval.split = "val"
    config.eval.every = "5 epochs"
    config.log.samples_every = "5 epochs"
    return shrink(config) if check_arg(arg) else config
