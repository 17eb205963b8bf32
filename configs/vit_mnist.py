"""A small Vision Transformer on 5,000 real MNIST digits, in seconds: the first one to try.

    python train.py --config=configs/vit_mnist.py

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), appendix B, at the width of a toy.
Deviations: 28 pixels in patches of 7, AdamW at 0.002.
Reached here: 98 to 100 % of a minibatch right in the last epochs of ten, 25 s from command to end, on 2 cores of an
    AMD EPYC, jax 0.10.2, seed 0. These are training images: mnist_5k has no other split.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "10 epochs"
    config.vit.patch_size = 7
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = "1 epochs"
    config.checkpoint.every = "5 epochs"
    return shrink(config) if check_arg(arg) else config
