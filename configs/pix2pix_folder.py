"""pix2pix on your own pairs of pictures.

    python train.py --config=configs/pix2pix_folder.py --config.data.path=sketches --config.data.targets=photos \
        --config.data.target_kind=image

from each picture of the first folder to the one of its name in the second; or, of pictures that have both side by side,
as pix2pix's own sets do,

    python train.py --config=configs/pix2pix_folder.py --config.data.path=facades --config.data.side_by_side=true

from left to right; `--config.translation.reverse=true` is the other direction.

Source: as configs/pix2pix_camvid.py, at the paper's 256 pixels: 8 halvings, 54.4 million parameters.
Deviations: instance normalisation, which is what BatchNorm is at batch 1 but for its scale and bias.
Reached here: not run to its end here.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("image_to_image")
    config.duration = "200 epochs"
    config.data.update(source="folder", image_size=286, channels=3, crop="none", batch_size=1, flip=True)
    config.translation.patch = 256
    config.generator.levels = 8
    config.translation.schedules = "; ".join(
        f"{player}_optimizer.learning_rate = 0: 2e-4, 50%: 2e-4, 100%: 0 linear"
        for player in ("generator", "discriminator")
    )
    config.log.samples_every = "5 epochs"
    return shrink(config) if check_arg(arg) else config
