"""DCGAN on 5,000 real MNIST digits at 28 pixels: the README's first command.

    python train.py --config=configs/dcgan_mnist.py

Source: Radford et al. 2015 (arXiv:1511.06434), in the 4x4-kernel form of pytorch/examples/dcgan: Adam 2e-4,
    beta1 0.5, batch normalisation, N(0, 0.02) weights, non-saturating loss.
Deviations: 28 pixels, so two fractionally-strided layers, 7 to 14 to 28; batch 32, for more updates in few
    minutes; samples come from an averaged generator.
Reached here: mostly recognisable digits (docs/images/dcgan_mnist.png) after 4,688 steps, 2 min 21 s from the
    command to the end, 1,000 to 1,200 images/s, on 2 cores of an AMD EPYC, jax 0.10.2, seed 0.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "30 epochs"
    config.data.batch_size = 32
    return shrink(config) if check_arg(arg) else config
