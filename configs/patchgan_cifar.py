"""A DCGAN generator against a PatchGAN discriminator, on CIFAR-10 at 32 pixels.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/patchgan_cifar.py

Source: the discriminator of Isola et al. 2017 (arXiv:1611.07004), section 3.2.2, here with a receptive field of
    16 pixels; generator and optimizer as in configs/dcgan_cifar.py.
Deviations: unconditional, so no image-to-image input and no L1 term: each patch is judged by itself, and
    nothing asks the patches to make one object.
Reached here: not run to its end here. After 1 of 100 epochs on the CIFAR-10 (JPEG q75 copy) folder, seed 0: colours
    and textures with a visible grid; 3 min 56 s on 2 cores of an AMD EPYC, other programs running, jax 0.10.2.
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
    config.discriminator.architecture = "patchgan"
    config.discriminator.receptive_field = 16
    return shrink(config) if check_arg(arg) else config
