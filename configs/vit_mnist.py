"""A small Vision Transformer on 5,000 real MNIST digits, in seconds: the first one to try.

    python train.py --config=configs/vit_mnist.py

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), appendix B, at the width of a toy.
Deviations: 28 pixels in patches of 7, AdamW at 0.002.
Reached here: TODO
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
