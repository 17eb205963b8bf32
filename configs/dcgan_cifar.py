"""DCGAN on CIFAR-10 at 32 pixels.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/dcgan_cifar.py

From a folder of images instead: --config.data.source=folder --config.data.path=FOLDER

Source: Radford et al. 2015 (arXiv:1511.06434), in the 4x4-kernel form of pytorch/examples/dcgan, batch 128.
Deviations: 32 pixels, so three fractionally-strided layers; horizontal flips; samples come from an averaged
    generator.
Reached here: not run to its end here. After 6 of 100 epochs on the CIFAR-10 (JPEG q75 copy) folder, seed 0: colours,
    skies, grounds and blobs of the right size, no object to recognise; 13 min 33 s on 2 cores of an AMD EPYC, other
    programs running, jax 0.10.2. The TFDS set itself was not to be had there.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, on made-up images."""
    config = default_config("gan")
    config.duration = "100 epochs"
    config.data.source = "tfds"
    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.channels = 3
    config.data.batch_size = 128
    config.data.flip = True
    config.log.samples_every = "1 epochs"
    return shrink(config) if check_arg(arg) else config
