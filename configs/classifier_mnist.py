"""A small classifier on 5,000 real MNIST digits: the second task through the same loop.

    python train.py --config=configs/classifier_mnist.py

Source: none; the body of DCGAN's discriminator with ten outputs, cross-entropy, Adam.
Deviations: none.
Reached here: @@classifier_mnist@@
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "5 epochs"
    config.checkpoint.every = "1 epochs"
    return shrink(config) if check_arg(arg) else config
